"""What was judged beyond the classes, as tables of the model card: one function per kind of judgement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lentigo.evaluation.card_facts import Score, ScoreTable, SectionName
from lentigo.evaluation.wording import PLAIN, SHARE

if TYPE_CHECKING:
    from lentigo.evaluation.calibration import Calibration
    from lentigo.evaluation.clinical_results import ClinicalJudgement, Reliability
    from lentigo.evaluation.conformal import Kind, SetJudgement
    from lentigo.evaluation.examine import CalibratedBy
    from lentigo.evaluation.explain import ExplanationCheck
    from lentigo.evaluation.outliers import OutlierJudgement
    from lentigo.evaluation.robustness import Robustness
    from lentigo.evaluation.run_records import Findings
    from lentigo.evaluation.selective import RuleJudgement, RuleKind
    from lentigo.evaluation.subgroups import SubgroupAudit


def card_sections(findings: Findings) -> dict[SectionName, ScoreTable]:
    """The tables of all that was judged; a run that was judged before there were examinations lacks their sections."""
    sections: dict[SectionName, ScoreTable] = {}
    split, examination, calibration = findings.split, findings.examination, findings.calibration
    if examination is not None:
        sections["malignant"] = malignant_section(examination.clinical, split, examination.calibrated_by)
        if calibration is not None:
            reliability = {f"{split}, raw": examination.before}
            if examination.calibrated_by != "not calibrated":
                reliability[f"{split}, calibrated"] = examination.clinical.reliability
            sections["calibration"] = calibration_section(calibration, reliability)
        if examination.sets:
            sections["uncertainty"] = uncertainty_section(examination.sets, examination.rules, split)
        sections["subgroups"] = subgroups_section(examination.subgroups, split)
    if findings.robustness is not None:
        sections["robustness"] = robustness_section(findings.robustness)
    if findings.outliers is not None:
        sections["outliers"] = outliers_section(findings.outliers)
    if findings.explanations is not None:
        sections["explanation"] = explanation_section(findings.explanations.check)
    return sections


def malignant_section(judged: ClinicalJudgement, split: str, calibrated_by: CalibratedBy) -> ScoreTable:
    """The binary questions: how well the score ranks, and what each frozen threshold does."""
    scores = []
    for question, found in judged.questions.items():
        scores += [
            Score(f"{question}: AUC", found.auc, PLAIN),
            Score(f"{question}: average precision", found.average_precision, PLAIN),
        ]
        for point in found.operating_points.values():
            if point.threshold is None:
                continue
            name = f"{question}, threshold {point.threshold:.3f} for {point.level:.0%} {point.goal}"
            shares = {
                "sensitivity": point.sensitivity,
                "specificity": point.specificity,
                "PPV": point.ppv,
                "NPV": point.npv,
            }
            scores += [Score(f"{name}: {part}", share) for part, share in shares.items()]
    return ScoreTable(
        f"Malignant or not, {split}",
        tuple(scores),
        f"{_thresholds_text(judged)} {ranking_text(calibrated_by)}".rstrip(),
    )


def ranking_text(calibrated_by: CalibratedBy) -> str:
    """Why a class has another AUC here than in the table of classes; empty where it has the same."""
    if calibrated_by == "not calibrated":
        return ""
    fitted = "cross-fitted on val" if calibrated_by == "cross-fitted on val" else "calibrated on val"
    return (
        f"Images are ranked by probabilities {fitted}, so that an AUC may differ a little from that in the table of "
        "classes, which ranks by the plain softmax."
    )


def _thresholds_text(judged: ClinicalJudgement) -> str:
    points = [point for question in judged.questions.values() for point in question.operating_points.values()]
    if all(point.threshold is None for point in points):
        return "There is no threshold: one comes from a calibration on val images of both kinds."
    return (
        f"Thresholds were chosen on {judged.thresholds_from}; an image at or above one is called positive. Predictive "
        "values hold for this split's mix of classes alone."
    )


def calibration_section(calibration: Calibration, reliability: Mapping[str, Reliability | None]) -> ScoreTable:
    """Log loss on val before and after, and error and Brier score of each set of probabilities, by its name."""
    scores = [
        Score(f"log loss on val, {_words(name)} (nats)", found, PLAIN) for name, found in calibration.log_loss.items()
    ]
    for name, found in reliability.items():
        if found is not None:
            scores += [
                Score(f"{name}: expected calibration error", found.ece),
                Score(f"{name}: Brier score (0 to 2)", found.brier, PLAIN),
            ]
    return ScoreTable(
        "Calibration",
        tuple(scores),
        f"Temperature {calibration.temperature:.3f}, fitted on {calibration.n_images} {calibration.split} images; "
        "it changes no answer. Numbers on val are cross-fitted, but for those before calibration.",
    )


def uncertainty_section(
    sets: Mapping[Kind, SetJudgement], rules: Mapping[RuleKind, RuleJudgement], split: str
) -> ScoreTable:
    """Prediction sets and abstain rules by their names: what they cover and what they cost."""
    scores = []
    for name, judged in sets.items():
        scores += [
            Score(f"{_words(name)} sets: hold the true class", judged.coverage),
            Score(f"{_words(name)} sets: classes in a set", judged.mean_size, PLAIN),
        ]
    for how, rule in rules.items():
        scores += [
            Score(f"abstaining by {_words(how)}: images answered", rule.accepted),
            Score(f"abstaining by {_words(how)}: wrong among the answered", rule.error),
            Score(f"abstaining by {_words(how)}: malignant, answered as benign", rule.malignant_as_benign),
        ]
    return ScoreTable(f"Prediction sets and abstaining, {split}", tuple(scores))


def subgroups_section(audit: SubgroupAudit, split: str, *, score: str = "balanced_accuracy") -> ScoreTable:
    """One score of every judged subgroup; those apart from the whole are marked."""
    kind = PLAIN if score.endswith("auc") else SHARE
    scores = [Score("all", audit.whole[score], kind)]
    for group in audit.groups:
        if group.judged:
            name = f"{_words(group.dimension)}: {_words(group.name)}"
            if score in group.unexplained:
                name += " (flagged: apart from all)"
            elif score in group.apart:
                name += " (apart from all, as its classes explain)"
            scores.append(Score(name, group.scores[score], kind))
    small = sum(not group.judged for group in audit.groups)
    return ScoreTable(
        f"Subgroups, {split}: {_words(score)}",
        tuple(scores),
        f"{audit.statement} {small} groups under {audit.fewest_images} images are not judged. Of {audit.n_comparisons} "
        f"comparisons with the whole over all scores, about {audit.chance_flags:g} or fewer would lie apart by "
        "chance, more for balanced accuracy in small groups.",
    )


def robustness_section(found: Robustness, *, metric: str = "balanced_accuracy") -> ScoreTable:
    """The mean score over the severities of each kind of corruption, the most harmful first."""
    kinds = sorted(found.kinds, key=lambda one: (one.mean[metric].value is None, one.mean[metric].value or 0.0))
    scores = [
        Score("untouched", found.clean[metric]),
        Score("mean over all kinds", found.mean[metric]),
        Score("mean loss", found.drop[metric]),
        *(Score(_words(one.kind), one.mean[metric]) for one in kinds),
    ]
    return ScoreTable(
        f"Corrupted images, {found.split}: {_words(metric)}",
        tuple(scores),
        f"{found.n_images} of {found.n_available} images, severities {found.severities[0]} to {found.severities[-1]}.",
    )


def outliers_section(judged: OutlierJudgement) -> ScoreTable:
    """The chosen gate on each other kind of image."""
    chosen = judged.scores[judged.chosen]
    scores = []
    for name, kind in chosen.kinds.items():
        scores += [
            Score(f"{_words(name)}: AUC of the score", kind.auroc, PLAIN),
            Score(f"{_words(name)}: rejected", kind.rejected),
        ]
    return ScoreTable(
        "Images of other kinds",
        tuple(scores),
        f"The score is {_words(judged.chosen)}; its limit lets {chosen.gate.pass_rate:.0%} of {judged.n_familiar} val "
        "images pass.",
    )


def explanation_section(check: ExplanationCheck) -> ScoreTable:
    """Whether maps of Grad-CAM show what the network rests on."""
    scores = (
        Score("gain over deleting in random order", check.beats_random, PLAIN),
        Score("gain over deleting from the centre", check.beats_centre, PLAIN),
        Score("likeness to maps of random weights", check.similarity_randomised, PLAIN),
        Score("likeness to maps of mirrored images", check.similarity_mirrored, PLAIN),
    )
    return ScoreTable(
        "Explanations (Grad-CAM)",
        scores,
        f"{' '.join(check.findings)} A map is of use where both gains lie above 0 and random weights give other maps.",
    )


def _words(name: str) -> str:
    return name.replace("_", " ")
