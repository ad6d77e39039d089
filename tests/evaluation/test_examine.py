"""Examining a split and a run: what comes from val, what is frozen, what is written, and what the report shows."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lentigo.core.errors import CheckpointError, DataError
from lentigo.core.predictions import Predictions
from lentigo.core.run_dir import RunDir
from lentigo.core.taxonomy import CLASS_CODES, MELANOMA_LABEL, NUM_CLASSES
from lentigo.data.catalog import Catalog, Row
from lentigo.data.corruptions import SEVERITIES
from lentigo.evaluation.calibration import Calibration
from lentigo.evaluation.examine import CROSS_FITTED, Examination, examine
from lentigo.evaluation.examined_sections import examined_sections
from lentigo.evaluation.explain_run import explain_run
from lentigo.evaluation.fit_calibration import cross_fitted, fit_calibration
from lentigo.evaluation.metrics import Estimate
from lentigo.evaluation.outliers import KindJudgement, OutlierGate, OutlierJudgement, ScoreJudgement
from lentigo.evaluation.overlay_gallery import SHOWN, overlay_gallery
from lentigo.evaluation.robustness import CLEAN, judge_corrupted
from lentigo.evaluation.run_evaluation import evaluate_run, judge_again, judge_corruptions, judge_outliers
from lentigo.evaluation.run_metrics import WEIGHTS_KEY, read_metrics
from lentigo.evaluation.run_records import read_examinations, read_findings, read_judgements
from lentigo.evaluation.run_report import render_report
from lentigo.models.checkpoint import add_calibration, load_checkpoint, load_tensors, save_checkpoint, weights_digest

from .test_report import Page
from .untrained import untrained_run

FEW = {"resamples": 20}
MOST_BYTES = 5_000_000
SECTIONS = (
    "Val: class by class",
    "Malignant or benign",
    "Are its probabilities right?",
    "When it is unsure",
    "Subgroups",
    "Damaged images",
    "Images of other kinds",
    "Where it looks",
    "Data and training",
    "Errors",
    "Reporting checklists",
    "Limits",
)


def table(seed: int, present: tuple[int, ...] = tuple(range(NUM_CLASSES)), count: int = 140) -> Predictions:
    labels = np.array([present[i % len(present)] for i in range(count)], dtype=np.int64)
    logits = np.random.default_rng(seed).normal(size=(count, NUM_CLASSES)).astype(np.float32)
    logits[np.arange(count), labels] += 2.0
    names = tuple(f"image-{i}" for i in range(count))
    return Predictions(names, names, labels, logits)


def rows_of(predictions: Predictions) -> list[Row]:
    return [
        Row(name, Path("x.jpg"), int(label), name, sex="female" if i % 2 else "male", width=8, height=8)
        for i, (name, label) in enumerate(zip(predictions.image_id, predictions.label, strict=True))
    ]


def examined(predictions: Predictions, split: str, calibration: Calibration | None) -> Examination:
    return examine(predictions, rows_of(predictions), split=split, calibration=calibration, **FEW)


def test_val_is_examined_with_what_other_lesions_gave() -> None:
    val = table(1)
    found = examined(val, "val", fit_calibration(val, **FEW))
    assert found.calibrated_by == "cross-fitted on val"
    assert found.clinical.thresholds_from == CROSS_FITTED
    decided = cross_fitted(val)
    point = found.clinical.questions["melanoma"].operating_points["specificity_90"]
    assert point.threshold == fit_calibration(val, **FEW).thresholds["melanoma_specificity_90"], "the one to be used"
    called = decided.positive["melanoma_specificity_90"]
    assert point.sensitivity.value == pytest.approx(called[val.label == MELANOMA_LABEL].mean())
    assert point.specificity.value == pytest.approx(1 - called[val.label != MELANOMA_LABEL].mean())
    right = decided.probs.argmax(axis=1) == val.label
    assert found.rules.keys() == decided.accepted.keys()
    for kind, rule in found.rules.items():
        assert rule.accepted.value == pytest.approx(decided.accepted[kind].mean())
    covered = decided.sets["marginal"][np.arange(len(val)), val.label]
    assert found.sets["marginal"].coverage.value == pytest.approx(covered.mean())
    assert found.subgroups.whole["accuracy"].value == pytest.approx((val.probs.argmax(axis=1) == val.label).mean())
    assert right.mean() == pytest.approx(found.subgroups.whole["accuracy"].value), "a temperature changes no answer"
    assert Examination.model_validate(json.loads(json.dumps(found.as_dict(), allow_nan=False))) == found


def test_test_takes_everything_frozen_from_val() -> None:
    calibration, test = fit_calibration(table(1), **FEW), table(2)
    found = examined(test, "test", calibration)
    assert found.calibrated_by == "frozen from val"
    assert found.clinical.thresholds_from == "val"
    decided = calibration.decide(test.logits)
    covered = decided.sets["class_conditional"][np.arange(len(test)), test.label]
    assert found.sets["class_conditional"].coverage.value == pytest.approx(covered.mean())
    points = found.clinical.questions["malignant"].operating_points
    assert {point.threshold for point in points.values()} <= set(calibration.thresholds.values())
    again = examined(replace(test, label=np.roll(test.label, 1)), "test", calibration)
    assert [point.threshold for point in again.clinical.questions["malignant"].operating_points.values()] == [
        point.threshold for point in points.values()
    ], "labels of test choose no threshold"


def test_without_a_calibration_the_plain_softmax_is_examined_and_says_so() -> None:
    found = examined(table(3), "test", None)
    assert (found.calibrated_by, found.sets, found.rules) == ("not calibrated", {}, {})
    assert found.clinical.reliability == found.before
    points = [point for one in found.clinical.questions.values() for point in one.operating_points.values()]
    assert all((point.threshold, point.sensitivity.value) == (None, None) for point in points), "chosen on test itself"
    one_lesion = replace(table(3, count=4), lesion_id=("same",) * 4)
    assert examined(one_lesion, "val", fit_calibration(one_lesion, **FEW)).calibrated_by == "not calibrated"


@pytest.mark.parametrize("label", [MELANOMA_LABEL, 5])
def test_a_split_of_one_class_leaves_undefined_what_needs_two(label: int) -> None:
    val = table(4, (label,), count=60)
    found = examined(val, "val", fit_calibration(val, **FEW))
    malignant = found.clinical.questions["malignant"]
    assert (malignant.auc.value, malignant.auc.ci_low) == (None, None)
    assert all(point.threshold is None for point in malignant.operating_points.values())
    others = [one for code, one in found.clinical.per_class.items() if code != CLASS_CODES[label]]
    assert all((one.sensitivity.value, one.sensitivity.n) == (None, 0) for one in others)
    assert found.sets["class_conditional"].coverage.n == 60


def test_a_class_absent_from_val_has_no_score_there_and_is_in_every_set_on_test() -> None:
    absent = MELANOMA_LABEL
    val = table(5, tuple(label for label in range(NUM_CLASSES) if label != absent))
    calibration = fit_calibration(val, **FEW)
    found = examined(val, "val", calibration)
    assert found.clinical.questions["melanoma"].auc.value is None
    assert found.clinical.questions["malignant"].auc.value is not None
    on_test = examined(table(6), "test", calibration)
    assert on_test.sets["class_conditional"].coverage_per_class[CLASS_CODES[absent]].value == 1.0
    points = on_test.clinical.questions["melanoma"].operating_points.values()
    assert all((point.threshold, point.sensitivity.value) == (None, None) for point in points)
    assert on_test.clinical.questions["melanoma"].auc.value is not None


def headings_of(page: str) -> list[str]:
    return [part.partition("</h2>")[0] for part in page.split("<h2>")[1:]]


@pytest.fixture(scope="module")
def run(synthetic_catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """An untrained network, judged on val and then on test, with everything else that a run can be asked for."""
    lesions = sorted({row.lesion_id for row in synthetic_catalog if row.split == "val"})
    rows = [replace(row, split="test") if row.lesion_id in lesions[::2] else row for row in synthetic_catalog]
    made = untrained_run(tmp_path_factory.mktemp("examined") / "run", Catalog(tuple(rows), "synthetic", synthetic=True))
    evaluate_run(made, "val", **FEW)
    return made


@pytest.fixture(scope="module")
def full(run: RunDir) -> RunDir:
    """The same with corrupted images, outliers and explanations; the overlays are drawn, the rest is made up."""
    val = Predictions.from_csv(run.predictions("val"))
    noise = np.random.default_rng(0)
    cells = {
        cell: replace(val, logits=val.logits + noise.normal(size=val.logits.shape).astype(np.float32))
        for cell in (CLEAN, *((kind, severity) for kind in ("jpeg", "ink", "hair") for severity in SEVERITIES))
    }
    run.robustness.write_text(json.dumps(judge_corrupted(cells, split="val", **FEW).as_dict()), encoding="utf-8")
    half = Estimate(0.5, 0.4, 0.6, 9)
    gate = OutlierGate(score="energy", threshold=0.0, pass_rate=0.95, n=9)
    judged = OutlierJudgement(
        chosen="energy",
        n_train=30,
        n_familiar=9,
        synthetic=True,
        scores={"energy": ScoreJudgement(gate=gate, kinds={"holidays": KindJudgement(auroc=half, rejected=half)})},
    )
    run.outlier_judgement.parent.mkdir()
    run.outlier_judgement.write_text(json.dumps(judged.as_dict()), encoding="utf-8")
    explain_run(run, count=2, **FEW)
    return run


@pytest.mark.slow
def test_judging_val_writes_everything_and_the_checkpoint_carries_the_calibration(run: RunDir) -> None:
    calibration = Calibration.from_json(run.calibration)
    carried = load_checkpoint(run.best)[1].calibration
    assert Calibration.model_validate(carried) == calibration
    found = read_examinations(run)
    assert list(found) == ["val"]
    assert found["val"].calibrated_by == "cross-fitted on val"
    assert found["val"].subgroups.synthetic
    card = run.model_card.read_text(encoding="utf-8")
    assert f"Temperature {calibration.temperature:.3f}" in card
    ranked = "Images are ranked by probabilities cross-fitted on val"
    assert card.count(ranked) == 1
    assert "Not judged for this run: corrupted images, images of other kinds, explanations." in card
    page = run.report.read_text(encoding="utf-8")
    assert page.count(ranked) == 2, "beside the clinical scores and beside the subgroups"
    assert "Images of other kinds" not in headings_of(page)
    assert "Where it looks" not in headings_of(page)


@pytest.mark.slow
def test_the_report_has_every_section_and_stays_small(full: RunDir) -> None:
    page = render_report(full).read_text(encoding="utf-8")
    assert [heading for heading in headings_of(page) if heading in SECTIONS] == list(SECTIONS)
    assert len(page.encode()) < MOST_BYTES
    parsed = Page(page)
    assert parsed.images_without_text == 0
    assert len(parsed.ids) == len(set(parsed.ids))
    assert "holidays: rejected" in page
    assert "Deletion against a random order: " in page
    assert "Sure error: 2 val images" in page
    card = full.model_card.read_text(encoding="utf-8")
    assert "### Images of other kinds" in card
    assert "### Explanations (Grad-CAM)" in card
    assert "Not judged for this run" not in card


@pytest.mark.slow
def test_overlays_have_truth_answer_and_text_and_are_not_all_shown(full: RunDir) -> None:
    found = read_findings(full, "val").explanations
    assert found is not None
    first = found.images[0]
    html = overlay_gallery(full, found)
    assert f"{first.truth.upper()} → " in html
    assert f'alt="Evidence for {first.shown.upper()} on a lesion that is {first.truth.upper()}, answered' in html
    many = found.model_copy(update={"images": (first,) * (SHOWN + 3)})
    html = overlay_gallery(full, many)
    assert html.count("<img") == SHOWN
    assert f"{SHOWN + 3} val images; {SHOWN} are shown" in html
    other = first.model_copy(update={"shown": next(code for code in CLASS_CODES if code != first.answer)})
    assert "evidence for " in overlay_gallery(full, found.model_copy(update={"images": (other,)}))
    assert overlay_gallery(RunDir(full.path / "moved"), found) == ""


@pytest.mark.slow
def test_a_run_without_an_examination_still_has_its_other_sections(full: RunDir) -> None:
    findings = replace(read_findings(full, "val"), examination=None)
    sections = examined_sections(full, read_judgements(full)["val"], findings, note="")
    assert list(sections) == ["Damaged images", "Images of other kinds", "Where it looks"]


@pytest.mark.slow
@pytest.mark.parametrize("content", ["{", '{"val": {}}'])
@pytest.mark.parametrize("name", ["examination", "calibration", "robustness", "outlier_judgement", "explanation_check"])
def test_damaged_files_are_named_with_a_remedy_before_test_is_opened(full: RunDir, name: str, content: str) -> None:
    path: Path = getattr(full, name)
    kept = path.read_bytes()
    try:
        path.write_text(content, encoding="utf-8")
        for judge in (lambda: evaluate_run(full, "test", **FEW), lambda: render_report(full)):
            with pytest.raises(DataError, match=path.name) as raised:
                judge()
            assert "lentigo e" in raised.value.remedy, "evaluate or explain"
    finally:
        path.write_bytes(kept)
    assert full.read_looks() == []
    assert not full.predictions("test").exists()


@pytest.mark.slow
def test_test_is_judged_with_the_calibration_of_val_and_leaves_it(full: RunDir) -> None:
    before, weights = full.calibration.read_bytes(), full.best.read_bytes()
    evaluate_run(full, "test", **FEW)
    assert (full.calibration.read_bytes(), full.best.read_bytes()) == (before, weights)
    found = read_examinations(full)
    assert found["test"].calibrated_by == "frozen from val"
    page = full.report.read_text(encoding="utf-8")
    assert "were fitted on val and only applied here" in page
    assert len(full.read_looks()) == 1
    full.calibration.unlink()
    judge_again(full, "test", **FEW)
    assert read_examinations(full)["test"].calibrated_by == "not calibrated"
    assert "Not calibrated: judge val first" in full.report.read_text(encoding="utf-8")
    assert len(full.read_looks()) == 1
    judge_again(full, "val", **FEW)
    assert read_examinations(full)["test"].calibrated_by == "frozen from val", "stored predictions are examined again"
    assert len(full.read_looks()) == 1


@pytest.mark.slow
def test_a_model_that_was_trained_on_since_val_was_judged_is_not_judged_on_test(full: RunDir) -> None:
    looks, calibrated = full.read_looks(), load_checkpoint(full.best)[1].calibration
    add_calibration(full.best, {})  # what a new best epoch writes
    with pytest.raises(CheckpointError, match="training went on since"):
        evaluate_run(full, "test", **FEW)
    assert full.read_looks() == looks
    add_calibration(full.best, calibrated)


@pytest.mark.slow
def test_a_cut_off_judgement_of_test_is_finished_without_a_second_look(full: RunDir) -> None:
    metrics = json.loads(full.metrics.read_text(encoding="utf-8"))
    looks, expected = full.read_looks(), metrics.pop("test")
    full.metrics.write_text(json.dumps(metrics), encoding="utf-8")
    evaluate_run(full, "test", **FEW)
    assert read_metrics(full)["test"] == expected
    assert full.read_looks() == looks


@pytest.fixture
def resumed(full: RunDir, tmp_path: Path) -> RunDir:
    """The run with everything, judged on both splits, whose training went on to other weights since."""
    own = RunDir(tmp_path / "run")
    shutil.copytree(full.path, own.path)
    if "test" not in read_metrics(own):
        evaluate_run(own, "test", **FEW)
    weights, spec = load_tensors(own.best)[0], load_checkpoint(own.best)[1]
    moved = {name: value + 0.01 if value.is_floating_point() else value for name, value in weights.items()}
    save_checkpoint(own.best, moved, spec.model_copy(update={"calibration": {}}))
    return own


@pytest.mark.slow
def test_judging_val_drops_what_was_found_of_other_weights(resumed: RunDir) -> None:
    looks = resumed.read_looks()
    for judge in (
        lambda: judge_again(resumed, "val", **FEW),
        lambda: judge_again(resumed, "test", **FEW),
        lambda: judge_outliers(resumed),
        lambda: judge_corruptions(resumed, max_images=None),
        lambda: explain_run(resumed),
        lambda: explain_run(resumed, split="test"),
    ):
        with pytest.raises(CheckpointError, match="training went on since") as raised:
            judge()
        assert "Judge val again" in raised.value.remedy
    dropped = "test, corrupted images, images of other kinds, explanations"
    with pytest.warns(UserWarning, match=f"dropped from .*: {dropped}. Judge test again: .* --split test"):
        evaluate_run(resumed, "val", **FEW)
    assert list(read_metrics(resumed)) == list(read_examinations(resumed)) == ["val"]
    assert read_metrics(resumed)["val"][WEIGHTS_KEY] == weights_digest(load_tensors(resumed.best)[0])
    findings = read_findings(resumed, "val")
    assert (findings.robustness, findings.outliers, findings.explanations) == (None, None, None)
    assert [path.name for path in resumed.path.rglob("*test*")] == [resumed.looks.name]
    assert "Val: class by class" in headings_of(resumed.report.read_text(encoding="utf-8"))
    with pytest.raises(DataError, match="no predictions of test") as raised:
        judge_again(resumed, "test", **FEW)
    assert "--split test" in raised.value.remedy
    assert resumed.read_looks() == looks
    evaluate_run(resumed, "test", **FEW)
    assert len(resumed.read_looks()) == len(looks) + 1
    with warnings.catch_warnings(action="error"):
        evaluate_run(resumed, "val", **FEW)
    assert list(read_metrics(resumed)) == ["val", "test"]


@pytest.mark.slow
def test_what_was_left_of_a_cut_off_judgement_of_other_weights_is_dropped(resumed: RunDir) -> None:
    metrics = read_metrics(resumed)
    del metrics["test"]
    resumed.metrics.write_text(json.dumps(metrics), encoding="utf-8")
    with pytest.warns(UserWarning, match="dropped from .*: test, "):
        evaluate_run(resumed, "val", **FEW)
    assert not resumed.predictions("test").exists()


@pytest.mark.slow
def test_judgements_of_earlier_versions_stay(resumed: RunDir) -> None:
    metrics = read_metrics(resumed)
    for judgement in metrics.values():
        del judgement[WEIGHTS_KEY]
    resumed.metrics.write_text(json.dumps(metrics), encoding="utf-8")
    with warnings.catch_warnings(action="error"):
        evaluate_run(resumed, "val", **FEW)
    assert WEIGHTS_KEY in read_metrics(resumed)["val"]
    assert {**read_metrics(resumed)["test"]} == metrics["test"]
    assert resumed.robustness.is_file()
