// Results as files. JSON holds what `lentigo predict --json` and the service say of each image.

import { CLASSES } from "./facts.js";

const COLUMNS = ["name", "label", "confidence", "malignant_risk", "melanoma_risk", "abstain", "outlier"];
const LISTS = ["conformal_set", "quality_flags", "abstain_reasons"];
const ORIGIN = ["model", "variant", "views"];

/** One JSON list of predictions. */
export function toJson(predictions) {
  return `${JSON.stringify(predictions, null, 2)}\n`;
}

/** One row an image; probabilities in columns prob_CODE, lists joined by semicolons. */
export function toCsv(predictions) {
  const header = [...COLUMNS, ...CLASSES.map(({ code }) => `prob_${code}`), ...LISTS, ...ORIGIN];
  const rows = predictions.map((one) => [
    ...COLUMNS.map((key) => one[key]),
    ...CLASSES.map(({ code }) => one.probs[code]),
    ...LISTS.map((key) => one[key].join(";")),
    ...ORIGIN.map((key) => one[key]),
  ]);
  return [header, ...rows].map((row) => `${row.map(field).join(",")}\r\n`).join("");
}

/** Offer a text as a download. */
export function download(text, name, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function field(value) {
  const text = value === null ? "" : String(value);
  // A spreadsheet would run a file's name that begins like a formula.
  const safe = typeof value === "string" && /^[=+\-@\t]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
