// What was fitted on val, applied to new logits: lentigo.deploy.classifier.decide in the browser.

import { CLASSES, QUESTIONS } from "./facts.js";

const VIEWS = 1;
/** How the reason of an image of another kind begins. */
export const OUTLIER_REASON = "image of another kind: ";

/** The variant that the page runs, by the order of preference of lentigo.deploy.exported. */
export function chooseVariant(spec) {
  return ["fp32", "fp16", "int8"].find((name) => name in spec.variants);
}

/** What was fitted for a variant and number of views, or null. */
export function findCalibration(spec, variant, views) {
  return spec.variants[variant]?.calibrations[String(views)] ?? null;
}

/** softmax(logits / temperature). */
function softmax(logits, temperature = 1) {
  const scaled = Array.from(logits, (logit) => logit / temperature);
  const highest = Math.max(...scaled);
  const exponentials = scaled.map((value) => Math.exp(value - highest));
  const sum = total(exponentials);
  return exponentials.map((value) => value / sum);
}

/** Whether an image is of another kind than the training images; null where that cannot be known. */
function isOutlier(distance, limit) {
  return limit && typeof distance === "number" ? distance > limit.threshold : null;
}

function outlierReason(distance, { n, beyond }) {
  const nearer = n - beyond.filter((one) => one >= distance).length;
  return `${OUTLIER_REASON}farther from the training images than ${nearer} of ${n} val images`;
}

/** One image's answer, with the keys of `Prediction.as_dict`. */
export function decide({ name, logits, distance, flags, spec, variant }) {
  const calibration = findCalibration(spec, variant, VIEWS);
  const probs = softmax(logits, calibration?.temperature);
  const answer = probs.indexOf(Math.max(...probs));
  const risks = Object.fromEntries(
    Object.entries(QUESTIONS).map(([question, labels]) => [question, total(labels.map((label) => probs[label]))]),
  );
  const thresholds = calibration?.sets.class_conditional.thresholds;
  const set = thresholds ? codes().filter((_, label) => probs[label] >= thresholds[label]) : [];
  const doubts = calibration ? doubtsOf(calibration, probs[answer], set.length) : [`not calibrated for ${variant} with 1 view`];
  const outlier = isOutlier(distance, spec.variants[variant].outlier_limit);
  const strange = outlier ? [outlierReason(distance, spec.variants[variant].outlier_limit)] : [];
  const flaws = [...strange, ...flags.map((flag) => `quality of the picture: ${flag}`)];
  const reasons = [...doubts, ...flaws];
  const points = (calibration?.operating_points ?? []).filter((point) => point.threshold !== null);
  return {
    name,
    label: CLASSES[answer].code,
    confidence: probs[answer],
    probs: Object.fromEntries(CLASSES.map(({ code }, label) => [code, probs[label]])),
    malignant_risk: risks.malignant,
    melanoma_risk: risks.melanoma,
    operating_points: Object.fromEntries(points.map((point) => [pointName(point), risks[point.question] >= point.threshold])),
    conformal_set: set,
    abstain: calibration ? reasons.length > 0 : flaws.length > 0 || null,
    abstain_reasons: reasons,
    quality_flags: [...flags],
    outlier,
    logits: Array.from(logits),
    model: spec.name,
    variant,
    views: VIEWS,
  };
}

/** The key of a frozen threshold: `malignant_specificity_90`. */
export function pointName({ question, goal, level }) {
  return `${question}_${goal}_${Math.round(level * 100)}`;
}

/** The rule by confidence, or the one by the size of the set where no limit of confidence kept the promise on val. */
export function abstainRule({ rules }) {
  return rules.confidence.limit === null ? rules.set_size : rules.confidence;
}

function doubtsOf(calibration, confidence, size) {
  const rule = abstainRule(calibration);
  if (rule.limit === null) return [`no rule for abstaining could be found on val: ${rule.reason}`];
  if (rule.kind === "confidence") {
    return confidence >= rule.limit ? [] : [`confidence ${confidence.toFixed(3)} is below ${rule.limit.toFixed(3)}`];
  }
  return size >= 1 && size <= rule.limit ? [] : [`${size} classes in the set; 1 to ${rule.limit.toFixed(0)} are accepted`];
}

function codes() {
  return CLASSES.map(({ code }) => code);
}

function total(values) {
  return values.reduce((sum, value) => sum + value, 0);
}
