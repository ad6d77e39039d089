"""The report's sections beyond the scores: what was examined, each as a figure or two and a table of estimates."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

from lentigo.core.predictions import Predictions
from lentigo.core.run_dir import RunDir
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.evaluation import curve_figures, group_figures, judgement_figures
from lentigo.evaluation.calibration import Calibration
from lentigo.evaluation.card_facts import ScoreTable, SectionName
from lentigo.evaluation.card_sections import card_sections, ranking_text
from lentigo.evaluation.curves import precision_recall_points, roc_points
from lentigo.evaluation.delong import MALIGNANT, task_scores
from lentigo.evaluation.evaluate import Judgement
from lentigo.evaluation.examine import Examination
from lentigo.evaluation.fit_calibration import cross_fitted
from lentigo.evaluation.metrics import Floats
from lentigo.evaluation.overlay_gallery import overlay_gallery
from lentigo.evaluation.report_figures import figure_html
from lentigo.evaluation.report_tables import score_table, subgroup_table
from lentigo.evaluation.robustness import Robustness
from lentigo.evaluation.run_records import Findings

Figures = Mapping[str, Path]
"""What a figure shows, for those who cannot see it -> its file."""
SUBGROUP_SCORE = "accuracy"
"""Drawn for every subgroup: balanced accuracy would rest on one or two lesions of the rare classes."""
_OUTLIERS = (
    "The seven classes are all that the network can answer. How well a gate tells images of none of them, or too "
    "damaged ones, before they are answered; it does not stand before the answers in this report."
)
_HOW = {
    "frozen from val": "Temperature, thresholds, sets and rules were fitted on val and only applied here.",
    "cross-fitted on val": "Calibrated numbers of an image come from a calibration that was fitted without its lesion.",
    "not calibrated": "Not calibrated: judge val first, on two lesions or more.",
}


def examined_sections(
    run: RunDir,
    judgement: Judgement,
    findings: Findings,
    *,
    note: str,
) -> dict[str, str]:
    """Heading -> HTML body of each section; draws the figures into the run folder.

    `judgement` is that of the findings' split.
    """
    tables, sections = card_sections(findings), {}
    if findings.examination is not None:
        sections = _of_the_examination(run, judgement, findings.examination, findings.calibration, tables, note)
    if findings.robustness is not None:
        sections["Damaged images"] = _body(_robustness(run, findings.robustness, note), tables.get("robustness"), "")
    if findings.outliers is not None:
        sections["Images of other kinds"] = _body({}, tables.get("outliers"), _OUTLIERS)
    if findings.explanations is not None:
        sections["Where it looks"] = overlay_gallery(run, findings.explanations) + score_table(tables["explanation"])
    return sections


def _of_the_examination(
    run: RunDir,
    judgement: Judgement,
    examination: Examination,
    calibration: Calibration | None,
    tables: Mapping[SectionName, ScoreTable],
    note: str,
) -> dict[str, str]:
    split = judgement.split
    predictions = Predictions.from_csv(run.predictions(split))
    probs = _calibrated(predictions, examination, calibration)
    drawn: dict[SectionName, tuple[str, Figures, str]] = {
        "malignant": ("Malignant or benign", _malignant(run, judgement, examination, predictions, probs, note), ""),
        "calibration": (
            "Are its probabilities right?",
            _reliability(run, split, examination, predictions, probs, note),
            _HOW[examination.calibrated_by],
        ),
        "uncertainty": (
            "When it is unsure",
            _risk_coverage(run, split, examination, note),
            _promises(examination, calibration),
        ),
    }
    sections = {heading: _body(figures, tables.get(name), text) for name, (heading, figures, text) in drawn.items()}
    figures = _subgroups(run, split, examination, note)
    text = f"{tables['subgroups'].text} {ranking_text(examination.calibrated_by)}".rstrip()
    return sections | {"Subgroups": _body(figures, None, text) + subgroup_table(examination.subgroups)}


def _calibrated(predictions: Predictions, examination: Examination, calibration: Calibration | None) -> Floats:
    if calibration is None or examination.calibrated_by == "not calibrated":
        return predictions.probs
    if examination.calibrated_by == "cross-fitted on val":
        return cross_fitted(predictions).probs
    return calibration.apply(predictions.logits)


def _malignant(
    run: RunDir,
    judgement: Judgement,
    examination: Examination,
    predictions: Predictions,
    probs: Floats,
    note: str,
) -> Figures:
    clinical, split = examination.clinical, judgement.split
    roc, recall = {}, {}
    areas = {MALIGNANT: (clinical.questions["malignant"].auc, clinical.questions["malignant"].average_precision)}
    areas |= {code: (judgement.per_class[code].auc, clinical.per_class[code].average_precision) for code in CLASS_CODES}
    for task, (auc, average_precision) in areas.items():
        positive, scores = task_scores(predictions.label, probs, task)
        if not positive.any() or positive.all():
            roc[task] = curve_figures.Curve((), (), auc)
            recall[task] = curve_figures.Curve((), (), average_precision)
            continue
        prevalence = float(positive.mean())
        # The classes' AUCs are of the plain softmax, as in the table above; a temperature changes them a little.
        ranked = scores if task == MALIGNANT else task_scores(predictions.label, predictions.probs, task)[1]
        roc[task] = curve_figures.Curve(*roc_points(positive, ranked), auc)
        recall[task] = curve_figures.Curve(
            *precision_recall_points(positive, scores), average_precision, (prevalence, prevalence)
        )
    curve = clinical.decision_curve
    return {
        "ROC curves of malignant against benign and of each class": curve_figures.roc(
            roc, run.figure(f"roc_{split}"), note=note
        ),
        "Precision over recall of malignant against benign and of each class": curve_figures.precision_recall(
            recall, run.figure(f"precision_recall_{split}"), note=note
        ),
        "Net benefit of referring by the model, of referring everyone and no one": judgement_figures.decision_curve(
            [point.threshold for point in curve],
            [point.model for point in curve],
            [point.act_on_all for point in curve],
            run.figure(f"decision_curve_{split}"),
            note=note,
        ),
    }


def _reliability(
    run: RunDir,
    split: str,
    examination: Examination,
    predictions: Predictions,
    probs: Floats,
    note: str,
) -> Figures:
    found = {"raw": (examination.before, predictions.probs)}
    if examination.calibrated_by != "not calibrated":
        found["calibrated"] = (examination.clinical.reliability, probs)
    lines = {
        name: judgement_figures.Reliability(
            [judgement_figures.Bin(one.mean_confidence, one.accuracy) for one in judged.bins],
            judged.ece,
            values.max(axis=1),
        )
        for name, (judged, values) in found.items()
        if judged is not None
    }
    if not any(line.bins for line in lines.values()):
        return {}
    path = judgement_figures.reliability(lines, run.figure(f"reliability_{split}"), note=note)
    return {"Share of right answers over their confidence, before and after calibration": path}


def _risk_coverage(run: RunDir, split: str, examination: Examination, note: str) -> Figures:
    curve = examination.clinical.risk_coverage
    marks = [
        judgement_figures.Mark(rule.accepted, rule.error, f"rule: {_words(kind)}")
        for kind, rule in examination.rules.items()
        if rule.error.value is not None
    ]
    path = judgement_figures.risk_coverage(
        [point.coverage for point in curve],
        [point.risk for point in curve],
        run.figure(f"risk_coverage_{split}"),
        marks=marks,
        note=note,
    )
    return {"Share of wrong answers where only the surest are given": path}


def _promises(examination: Examination, calibration: Calibration | None) -> str:
    """What sets and rules promise, and where they cannot."""
    if calibration is None or not examination.sets:
        return ""
    fitted = calibration.sets["class_conditional"]
    texts = [
        f"A class-conditional set holds the true class of a new lesion of each class with probability "
        f"{1 - fitted.alpha:.0%} or more, a marginal one only for the mix of all, if lesions come as those of val did. "
        "The epoch may have been chosen on val, too: whether the promise holds, test says."
    ]
    if fitted.always_included:
        names = ", ".join(code.upper() for code in fitted.always_included)
        texts.append(f"Val has fewer than {fitted.least_n} lesions of {names}: in every class-conditional set.")
    texts += [
        f"No rule by {_words(kind)} keeps the wrong answers below {rule.max_error:.0%}: {rule.reason}."
        for kind, rule in calibration.rules.items()
        if rule.limit is None
    ]
    texts += [
        f"The rule by {_words(kind)} is not judged here: parts of val alone do not give one."
        for kind, rule in calibration.rules.items()
        if rule.limit is not None and kind not in examination.rules
    ]
    return " ".join(texts)


def _subgroups(run: RunDir, split: str, examination: Examination, note: str) -> Figures:
    audit = examination.subgroups
    rows = [
        group_figures.SubgroupRow(
            _words(group.dimension),
            group.name,
            group.n_images,
            group.scores[SUBGROUP_SCORE],
            group.expected.get(SUBGROUP_SCORE),
            SUBGROUP_SCORE in group.unexplained,
        )
        for group in audit.groups
        if group.judged
    ]
    if not rows:
        return {}
    score = _words(SUBGROUP_SCORE).capitalize()
    overall, path = audit.whole[SUBGROUP_SCORE], run.figure(f"subgroups_{split}")
    group_figures.subgroup_forest(rows, overall, path, metric=score, note=note)
    return {f"{score} of each subgroup with its interval, beside that of all images": path}


def _robustness(run: RunDir, found: Robustness, note: str) -> Figures:
    metric = "balanced_accuracy"
    rows = [
        group_figures.CorruptionRow(one.kind, [scores[metric].value for scores in one.by_severity], one.mean[metric])
        for one in found.kinds
    ]
    path = group_figures.robustness(
        rows, found.clean[metric], run.figure("robustness"), metric="Balanced accuracy", note=note
    )
    return {"Balanced accuracy under each kind of damage at severities 1 to 5": path}


def _body(figures: Figures, table: ScoreTable | None, text: str) -> str:
    """Text, then figures, then the table."""
    shown = "".join(figure_html(path.stem, path, description=words) for words, path in figures.items())
    return (
        (f"<p>{escape(text)}</p>" if text else "")
        + (f'<div class="figures">{shown}</div>' if shown else "")
        + ("" if table is None else score_table(table))
    )


def _words(name: str) -> str:
    return name.replace("_", " ")
