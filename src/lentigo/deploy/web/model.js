// The exported model in onnxruntime-web. Runs in the worker.

import * as ort from "./vendor/ort.wasm.bundle.min.mjs";
import { chooseVariant } from "./decide.js";
import { activationMap, paintHeat, stretchHeat, turnSquare } from "./heatmap.js";

const FOLDER = new URL("./model/", import.meta.url);
const HEAT_SIDE_PX = 256;
const MAX_THREADS = 4;

/** The address of a variant's graph; its digest in the query makes another model another address. */
function graphAddress({ file, sha256 }) {
  return new URL(`${encodeURIComponent(file)}?sha256=${sha256}`, FOLDER).href;
}

/** Fetch, check and open the model; `threads` above 1 need a page that is isolated from other origins. */
export async function loadModel(threads) {
  const spec = await (await fetched(new URL("model.json", FOLDER))).json();
  const variant = chooseVariant(spec);
  const graph = await (await fetched(graphAddress(spec.variants[variant]))).arrayBuffer();
  await checkDigest(graph, spec.variants[variant].sha256);
  ort.env.wasm.numThreads = Math.min(threads, MAX_THREADS);
  ort.env.wasm.wasmPaths = { wasm: new URL("./vendor/ort-wasm-simd-threaded.wasm", import.meta.url).href };
  const session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
  return new Model(spec, variant, session);
}

class Model {
  constructor(spec, variant, session) {
    this.spec = spec;
    this.variant = variant;
    this.session = session;
    this.side = spec.preprocess.resize_steps_px.at(-1);
  }

  /** Seven logits of one finished square, and how far it is from the training images, null where there is no limit. */
  async judge(square) {
    const names = this.spec.variants[this.variant].outlier_limit ? ["logits", "outlier_distance"] : ["logits"];
    const { logits, outlier_distance: distances } = await this.run(square, names);
    return { logits: Array.from(logits.data), distance: distances ? distances.data[0] : null };
  }

  /** RGBA pixels of what spoke for a class, side x side, or null where the head allows no such map. */
  async heat(square, label) {
    const weights = this.spec.head_weight[label];
    if (!weights) return null;
    const { data, dims } = (await this.run(square, ["feature_map"])).feature_map;
    const turned = (await this.run(turnSquare(square), ["feature_map"])).feature_map;
    const [, , height, width] = dims;
    const heat = activationMap(data, turned.data, weights);
    return { pixels: paintHeat(stretchHeat(heat, width, height, HEAT_SIDE_PX)), side: HEAT_SIDE_PX };
  }

  run(square, outputs) {
    const pixels = new ort.Tensor("uint8", square, [1, this.side, this.side, 3]);
    return this.session.run({ pixels }, outputs);
  }
}

async function fetched(address) {
  const response = await fetch(address);
  if (response.status === 401) throw new Error("the service needs its token; open this page once with ?token=TOKEN");
  if (!response.ok) throw new Error(`the model could not be loaded: ${response.status} at ${new URL(address).pathname}`);
  return response;
}

/** Only secure pages (https, or this very machine) have the means to check. */
async function checkDigest(bytes, expected) {
  if (!globalThis.crypto?.subtle) return;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== expected) throw new Error("the model's file is not the one that model.json describes");
}
