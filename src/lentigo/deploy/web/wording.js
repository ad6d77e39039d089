// An answer in words. Pure functions of predictions and of what was fitted on val.

import { CLASSES, QUALITY_LIMITS } from "./facts.js";
import { OUTLIER_REASON, abstainRule, pointName } from "./decide.js";
import { qualityText } from "./quality.js";

/** `37%`; the ends are never called certain. */
export function percent(share) {
  if (share < 0.005) return "<1%";
  return share > 0.995 ? ">99%" : `${Math.round(100 * share)}%`;
}

/** The full name of a class. */
export function className(code) {
  return CLASSES.find((one) => one.code === code).name;
}

/** Names as a sentence has them: `A, B and C`. */
function listed(names, last = "and") {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} ${last} ${names.at(-1)}`;
}

/** Kicker, headline and detail of the answer. */
export function verdictWords({ abstain, label, confidence }) {
  if (abstain) return { kicker: "The model does not answer", verdict: "No answer", detail: `${className(label)} would be most likely, at ${percent(confidence)}.` };
  const kind = abstain === null ? "Not calibrated" : "Calibrated probability";
  return { kicker: "Most likely", verdict: className(label), detail: `${kind}: ${percent(confidence)}` };
}

/** What the conformal set says. */
export function setWords({ conformal_set: members, probs }, calibration) {
  if (!calibration) return "Which kinds can be ruled out is not known: nothing was fitted for this variant of the model.";
  const set = [...members].sort((a, b) => probs[b] - probs[a]);
  if (set.length === 0) return "None of the seven kinds fits well.";
  if (set.length === CLASSES.length) return "Cannot tell: none of the seven kinds can be ruled out.";
  if (set.length === 1) return `Only ${className(set[0])} is left once unlikely kinds are ruled out.`;
  return `Cannot tell between ${listed(set.map(className))}.`;
}

/** How often the truth is among the kinds that are left, by the way the rule was made. */
export function promiseWords(calibration) {
  if (!calibration) return "";
  return `The rule is made so that it leaves the true kind in for ${percent(1 - calibration.sets.class_conditional.alpha)} of the lesions of each kind, if they come from where the validation images came from. Rare kinds are hard to rule out: few lesions of them were there to learn it from.`;
}

/** Why there is no answer, but for the flags of the picture, which have words of their own. */
export function abstainWords(prediction, calibration) {
  if (prediction.abstain === false) return [];
  const strange = prediction.abstain_reasons.filter((reason) => reason.startsWith(OUTLIER_REASON));
  return [...ruleWords(prediction, calibration), ...strange.map((reason) => sentence(reason.replace("val images", "validation images")))];
}

function ruleWords({ abstain_reasons: reasons, confidence, conformal_set: set }, calibration) {
  if (!calibration) return [`${sentence(reasons[0])} What it says is not calibrated, and it cannot know when to be silent.`];
  const rule = abstainRule(calibration);
  if (rule.limit === null) return [sentence(`no rule for abstaining could be found on validation: ${rule.reason}`)];
  if (rule.kind === "confidence") {
    return confidence >= rule.limit ? [] : [`It answers from a probability of ${exact(rule.limit)} on; the highest here is ${exact(confidence)}.`];
  }
  return set.length >= 1 && set.length <= rule.limit ? [] : [`It answers where 1 to ${rule.limit} kinds are left; here there are ${set.length}.`];
}

/** What is wrong with the picture; `values` of `measureQuality`, or null where only the names of the flags are known. */
export function qualityWords(flags, values) {
  return flags.map((name) => {
    if (values) return qualityText(name, values[name]);
    const { too_low: low, too_high: high } = QUALITY_LIMITS[name];
    return [low, high].filter(Boolean).join(" Or: ");
  });
}

/** The frozen lines of the malignant risk, lowest first. */
export function malignantPoints(calibration) {
  const points = (calibration?.operating_points ?? []).filter(({ question, threshold }) => question === "malignant" && threshold !== null);
  return points.sort((a, b) => a.threshold - b.threshold);
}

/** The risk at the line that misses least. */
export function riskWords({ operating_points: called }, calibration) {
  const points = malignantPoints(calibration);
  const point = points.find(({ goal }) => goal === "sensitivity") ?? points[0];
  if (!point) return "No line was fixed for this risk.";
  const place = called[pointName(point)] ? "Suspicious: at or above" : "Below";
  return (
    `${place} the line of ${percent(point.threshold)}. On the validation images it called ${point.detected} of ` +
    `${point.n_positive} malignant ones suspicious, and ${point.n_negative - point.passed} of ${point.n_negative} benign ones.`
  );
}

/** Rows [line, from, this image] for every frozen line. */
export function pointRows({ operating_points: called }, calibration) {
  const points = (calibration?.operating_points ?? []).filter(({ threshold }) => threshold !== null);
  return points.map((point) => [
    `${point.question === "malignant" ? "Malignant" : "Melanoma"}, ${Math.round(100 * point.level)}% ${point.goal} on validation`,
    percent(point.threshold),
    called[pointName(point)] ? "called" : "not called",
  ]);
}

/** The model in one line. */
export function modelWords(spec, variant, views) {
  const size = (spec.variants[variant].size_bytes / 1e6).toFixed(1);
  const looked = views > 1 ? `, ${views} views an image` : "";
  return `Model ${spec.name} (${spec.architecture}, ${variant}${looked}): ${spec.parameters.toLocaleString("en")} parameters, ${size} MB.`;
}

function exact(share) {
  return `${(100 * share).toFixed(1)}%`;
}

function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}
