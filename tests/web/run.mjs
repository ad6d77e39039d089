// Calls one exported function of the page's modules; the call comes as JSON on stdin, the result goes to stdout as JSON.
// Typed arrays travel as {"bytes": base64, "kind": "Uint8Array"}.

import { readFileSync } from "node:fs";

const KINDS = { Uint8Array, Uint8ClampedArray, Float32Array };

function revive(_, value) {
  if (value === null || typeof value !== "object" || !("bytes" in value)) return value;
  const bytes = Uint8Array.from(Buffer.from(value.bytes, "base64"));
  return new KINDS[value.kind](bytes.buffer);
}

function replace(_, value) {
  if (!ArrayBuffer.isView(value)) return value;
  return { bytes: Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("base64"), kind: value.constructor.name };
}

const { file, calls } = JSON.parse(readFileSync(0, "utf8"), revive);
const module = await import(file);
const results = calls.map(([name, ...args]) => module[name](...args));
process.stdout.write(JSON.stringify(results, replace));
