"""What a clinician asks of a classifier, from labels, probabilities and lesions: who is missed, who is alarmed.

Each class against the rest at the answer that was given; malignant against benign and melanoma against all else at
chosen thresholds; what the probabilities are worth (`reliability`), what acting on them brings (net benefit), and
what leaving doubtful images out would change (risk-coverage). Accuracy, AUC and F1 of the classes are in `metrics`.

Shapes: N images, C classes; labels (N,) int64; probs (N, C) float64, rows sum to 1; groups N lesion ids.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lentigo.core.errors import ConfigError, first_five
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.evaluation import curves
from lentigo.evaluation.clinical_results import (
    BinaryQuestion,
    ClinicalJudgement,
    Coverage,
    Decision,
    Goal,
    OneVersusRest,
    OperatingPoint,
    Reliability,
    ReliabilityBin,
)
from lentigo.evaluation.delong import MALIGNANT, MELANOMA, task_scores
from lentigo.evaluation.intervals import (
    LESION_BOOTSTRAP,
    PROPORTION_INTERVAL,
    Bootstrap,
    Rows,
    Share,
    bootstrap,
    proportions,
)
from lentigo.evaluation.metrics import Estimate, Floats, Groups, Labels, check_inputs, rarer_side, ratio, weighted_auc
from lentigo.evaluation.reliability import brier_scores, calibration_errors, equal_mass_bins, error_by_chance

QUESTIONS: Mapping[str, str] = {"malignant": MALIGNANT, "melanoma": MELANOMA}
"""The binary questions and their tasks in `delong.TASKS`."""
GOALS: tuple[tuple[Goal, float], ...] = (("specificity", 0.90), ("specificity", 0.95), ("sensitivity", 0.95))
SAME_IMAGES = "the judged images"
_FOUR = ("sensitivity", "specificity", "ppv", "npv")
DECISION_THRESHOLDS: Floats = np.arange(1, 61) / 100.0
COVERAGES: Floats = np.arange(1, 21) / 20.0


def threshold_name(question: str, goal: Goal, level: float) -> str:
    """The key of a threshold: `malignant_specificity_90`."""
    return f"{question}_{_goal_name(goal, level)}"


def own_thresholds(labels: Labels, probs: Floats) -> dict[str, float | None]:
    """The thresholds that reach GOALS on these images: name -> least score that counts as positive.

    None where there are no positive or no negative images. Of several that do, the highest.
    """
    found: dict[str, float | None] = {}
    for question, task in QUESTIONS.items():
        positive, scores = task_scores(labels, probs, task)
        counts = curves.counts_above(positive, scores, np.ones((len(labels), 1)))
        for goal, level in GOALS:
            fit = curves.threshold_at_specificity if goal == "specificity" else curves.threshold_at_sensitivity
            found[threshold_name(question, goal, level)] = fit(counts, level)
    return found


def judge_clinically(
    labels: Labels,
    probs: Floats,
    groups: Groups,
    *,
    thresholds: Mapping[str, float | None] | None = None,
    thresholds_from: str = "val",
    called: Mapping[str, Rows] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> ClinicalJudgement:
    """Every score of this module with n and interval.

    `thresholds`: names as in `threshold_name`, frozen elsewhere, on the images that `thresholds_from` names; a name
    that is missing or None has no operating point. Without a mapping these images choose their own, which flatters
    them, and `thresholds_from` is SAME_IMAGES. `called`: name -> (N,) bool, what is judged in place of the scores at or
    above the threshold, for images that took part in choosing it; a name that is missing there is not judged.

    Raises:
        DataError: where the arrays do not fit each other.
        ConfigError: where a threshold has an unknown name.
    """
    check_inputs(labels, probs, groups)
    if thresholds is None:
        thresholds, thresholds_from = own_thresholds(labels, probs), SAME_IMAGES
    _check_names(thresholds)
    questions = {name: task_scores(labels, probs, task) for name, task in QUESTIONS.items()}
    answers, confidence = probs.argmax(axis=1), probs.max(axis=1, initial=0.0)
    shares = _class_shares(labels, answers)
    for name, threshold in thresholds.items():
        if threshold is not None and (called is None or name in called):
            positive, scores = questions[name.partition("_")[0]]
            calls = scores >= threshold if called is None else called[name]
            shares |= {f"{name}/{part}": share for part, share in four_shares(positive, calls).items()}
    found = proportions(shares, groups, resamples=resamples, seed=seed)

    def score(weights: Floats) -> dict[str, Floats]:
        return (
            _class_scores(labels, probs, weights)
            | _question_scores(questions, weights)
            | _answer_scores(answers == labels, confidence, weights)
            | _decision_scores(*questions["malignant"], weights)
        )

    drawn = bootstrap(score, groups, resamples=resamples, seed=seed)
    everyone = np.ones(len(labels), dtype=np.bool_)
    return ClinicalJudgement(
        n_images=len(labels),
        n_lesions=len(np.unique(drawn.group)),
        resamples=resamples,
        seed=seed,
        interval=LESION_BOOTSTRAP,
        proportion_interval=PROPORTION_INTERVAL,
        thresholds_from=thresholds_from,
        per_class={
            code: OneVersusRest(
                n=int((labels == c).sum()),
                average_precision=drawn.estimate("average_precision", labels == c, c),
                **{part: found[f"{code}/{part}"] for part in _FOUR},
            )
            for c, code in enumerate(CLASS_CODES)
        },
        questions={
            name: _question(name, positive, thresholds, found, drawn) for name, (positive, _) in questions.items()
        },
        reliability=judge_reliability(labels, probs, groups, resamples=resamples, seed=seed),
        decision_curve=tuple(
            Decision(
                threshold=float(threshold),
                model=drawn.estimate("net_benefit", everyone, k),
                act_on_all=drawn.estimate("net_benefit_of_all", everyone, k),
                gain=drawn.estimate("net_benefit_gain", everyone, k),
            )
            for k, threshold in enumerate(DECISION_THRESHOLDS)
        ),
        risk_coverage=tuple(
            Coverage(coverage=float(coverage), risk=drawn.estimate("risk", everyone, k))
            for k, coverage in enumerate(COVERAGES)
        ),
        aurc=drawn.estimate("aurc", everyone),
    )


def judge_reliability(
    labels: Labels, probs: Floats, groups: Groups, *, resamples: int = 2000, seed: int = 0
) -> Reliability | None:
    """What the probabilities are worth; None without images."""
    confidence, right = probs.max(axis=1, initial=0.0), probs.argmax(axis=1) == labels
    bins = equal_mass_bins(confidence)
    by_chance = error_by_chance(confidence, bins)
    if by_chance is None:
        return None
    drawn = bootstrap(
        lambda weights: {
            "brier": ratio(brier_scores(labels, probs) @ weights, weights.sum(axis=0)),
            "ece": calibration_errors(right, confidence, bins, weights),
        },
        groups,
        resamples=resamples,
        seed=seed,
    )
    shares = {f"{k}": (right, bins == k) for k in range(bins.max() + 1)}
    found = proportions(shares, groups, resamples=resamples, seed=seed)
    everyone = np.ones(len(labels), dtype=np.bool_)
    return Reliability(
        brier=drawn.estimate("brier", everyone),
        ece=drawn.estimate("ece", everyone, centred=True),
        ece_by_chance=by_chance,
        bins=tuple(
            ReliabilityBin(mean_confidence=float(confidence[bins == k].mean()), accuracy=found[f"{k}"])
            for k in range(bins.max() + 1)
        ),
    )


def four_shares(positive: Rows, called: Rows) -> dict[str, Share]:
    """Sensitivity, specificity, PPV and NPV of calls (N,) as hits among cases."""
    return {
        "sensitivity": (called, positive),
        "specificity": (~called, ~positive),
        "ppv": (positive, called),
        "npv": (~positive, ~called),
    }


def _class_shares(labels: Labels, answers: Labels) -> dict[str, Share]:
    return {
        f"{code}/{part}": share
        for c, code in enumerate(CLASS_CODES)
        for part, share in four_shares(labels == c, answers == c).items()
    }


def _class_scores(labels: Labels, probs: Floats, weights: Floats) -> dict[str, Floats]:
    each = [
        curves.average_precision(curves.counts_above(labels == c, probs[:, c], weights))
        for c in range(len(CLASS_CODES))
    ]
    return {"average_precision": np.stack(each, axis=1)}


def _question_scores(questions: Mapping[str, tuple[Rows, Floats]], weights: Floats) -> dict[str, Floats]:
    found = {}
    for name, (positive, scores) in questions.items():
        counts = curves.counts_above(positive, scores, weights)
        found[f"{name}/auc"] = weighted_auc(positive, scores, weights)
        found[f"{name}/average_precision"] = curves.average_precision(counts)
        found[f"{name}/brier"] = ratio((positive - scores) ** 2 @ weights, weights.sum(axis=0))
        for goal, level in GOALS:
            best = curves.sensitivity_at_specificity if goal == "specificity" else curves.specificity_at_sensitivity
            found[f"{name}/{_goal_name(goal, level)}"] = best(counts, level)
    return found


def _answer_scores(right: Rows, confidence: Floats, weights: Floats) -> dict[str, Floats]:
    return {
        "risk": curves.risk_at_coverage(right, confidence, weights, COVERAGES),
        "aurc": curves.area_under_risk_coverage(right, confidence, weights),
    }


def _decision_scores(positive: Rows, scores: Floats, weights: Floats) -> dict[str, Floats]:
    model, of_all = curves.net_benefit(positive, scores, weights, DECISION_THRESHOLDS)
    gain = model - np.maximum(of_all, 0.0)
    return {"net_benefit": model, "net_benefit_of_all": of_all, "net_benefit_gain": gain}


def _question(
    name: str,
    positive: Rows,
    thresholds: Mapping[str, float | None],
    found: Mapping[str, Estimate],
    drawn: Bootstrap,
) -> BinaryQuestion:
    rarer = rarer_side(positive)
    points = {}
    for goal, level in GOALS:
        key = threshold_name(name, goal, level)
        nothing = Estimate(None, None, None, 0)
        parts = {part: found.get(f"{key}/{part}", nothing) for part in _FOUR}
        points[_goal_name(goal, level)] = OperatingPoint(goal=goal, level=level, threshold=thresholds.get(key), **parts)
    return BinaryQuestion(
        n_positive=int(positive.sum()),
        n_negative=int((~positive).sum()),
        auc=drawn.estimate(f"{name}/auc", rarer),
        average_precision=drawn.estimate(f"{name}/average_precision", positive),
        brier=drawn.estimate(f"{name}/brier", np.ones_like(positive)),
        best_at={
            _goal_name(goal, level): drawn.estimate(f"{name}/{_goal_name(goal, level)}", rarer) for goal, level in GOALS
        },
        operating_points=points,
    )


def _goal_name(goal: Goal, level: float) -> str:
    return f"{goal}_{100.0 * level:.0f}"


def _check_names(thresholds: Mapping[str, float | None]) -> None:
    known = [threshold_name(question, goal, level) for question in QUESTIONS for goal, level in GOALS]
    unknown = [name for name in thresholds if name not in known]
    if unknown:
        raise ConfigError(
            f"expected thresholds of {', '.join(known)}; found {first_five(unknown)}",
            "Name them with `lentigo.evaluation.clinical.threshold_name`.",
        )
