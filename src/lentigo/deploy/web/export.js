// Results as files: JSON as the service answers, CSV as `lentigo predict` writes it. Failed images are rows as well.

import { CLASSES } from "./facts.js";

const COLUMNS = [
  ...["name", "label", "confidence", ...CLASSES.map(({ code }) => `p_${code}`), "malignant_risk", "melanoma_risk"],
  ...["conformal_set", "abstain", "quality_flags", "outlier", "error", "model", "variant", "views", "graph", "quality_checked"],
];
const GRAPH_DIGITS = 12;

/** One JSON list; of `{prediction, problem}`, one of the two is null. */
export function toJson(cards) {
  return `${JSON.stringify(cards.map(({ prediction, problem }) => prediction ?? problem), null, 2)}\n`;
}

/** One row an image, from `{prediction, problem, facts}`; `facts` is null where the model was not there. */
export function toCsv(cards) {
  const rows = cards.map(({ prediction, problem, facts }) => {
    const cells = { ...(prediction ? answerCells(prediction) : { name: problem.name, error: problem.error }), ...originCells(facts) };
    return COLUMNS.map((name) => cells[name] ?? "");
  });
  return [COLUMNS, ...rows].map((row) => `${row.map(field).join(",")}\n`).join("");
}

/** Offer a text as a download. */
export function download(text, name, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Six decimals; classes and flags with a space between. */
function answerCells({ name, label, confidence, probs, malignant_risk, melanoma_risk, conformal_set, abstain, quality_flags, outlier }) {
  const numbers = { confidence, malignant_risk, melanoma_risk };
  for (const { code } of CLASSES) numbers[`p_${code}`] = probs[code];
  const texts = Object.entries(numbers).map(([column, value]) => [column, value.toFixed(6)]);
  return {
    ...{ name, label, ...Object.fromEntries(texts), abstain: yesNo(abstain), outlier: yesNo(outlier) },
    ...{ conformal_set: conformal_set.join(" "), quality_flags: quality_flags.join(" ") },
  };
}

/** Which model answered and how; the quality is always checked. */
function originCells(facts) {
  if (!facts) return {};
  const { spec, variant, views } = facts;
  return { model: spec.name, variant, views, graph: spec.variants[variant].sha256.slice(0, GRAPH_DIGITS), quality_checked: yesNo(true) };
}

function yesNo(value) {
  if (value === null) return "";
  return value ? "yes" : "no";
}

function field(value) {
  const text = String(value);
  // A spreadsheet would run a file's name that begins like a formula.
  const safe = /^[=+\-@\t]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
