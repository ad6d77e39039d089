"""Subgroups: the same scores as for their rows alone, against scikit-learn; flags; what is listed and not judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as oracle

from lentigo.core.errors import DataError
from lentigo.core.predictions import Predictions
from lentigo.core.taxonomy import CLASS_CODES, MALIGNANT_LABELS, parse_label
from lentigo.data.catalog import Row
from lentigo.evaluation.metrics import Estimate
from lentigo.evaluation.subgroups import SubgroupAudit, age_band, judge_subgroups

MELANOMA, NEVUS = parse_label("melanoma"), parse_label("nevus")


def make(count: int = 400, seed: int = 0, skill: float = 1.5) -> tuple[Predictions, list[Row]]:
    """Predictions of `count` images, and rows whose sex alternates and whose ages and sites are drawn."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(len(CLASS_CODES), count).astype(np.int64)
    logits = generator.normal(size=(count, len(CLASS_CODES))).astype(np.float32)
    logits[np.arange(count), labels] += skill
    names = tuple(f"image-{i}" for i in range(count))
    lesions = tuple(f"lesion-{i}" for i in range(count))
    rows = [
        Row(
            name,
            Path(f"{name}.jpg"),
            int(label),
            lesion,
            age_years=float(5 * generator.integers(0, 18)),
            sex=("female", "male")[i % 2],
            site=str(generator.choice(["back", "face"])),
            width=600,
            height=450,
        )
        for i, (name, label, lesion) in enumerate(zip(names, labels, lesions, strict=True))
    ]
    return Predictions(names, lesions, labels, logits), rows


def group(audit: SubgroupAudit, dimension: str, name: str):
    """The one group of this name."""
    (found,) = [one for one in audit.groups if (one.dimension, one.name) == (dimension, name)]
    return found


def test_scores_are_scikit_learns_on_the_groups_rows() -> None:
    predictions, rows = make()
    audit = judge_subgroups(predictions, rows, resamples=100)
    inside = np.arange(len(rows)) % 2 == 0
    labels, probs = predictions.label[inside], predictions.probs[inside]
    answers = probs.argmax(axis=1)
    found = group(audit, "sex", "female")
    malignant = np.isin(labels, MALIGNANT_LABELS)
    expected = {
        "accuracy": oracle.accuracy_score(labels, answers),
        "balanced_accuracy": oracle.balanced_accuracy_score(labels, answers),
        "malignant_auc": oracle.roc_auc_score(malignant, probs[:, list(MALIGNANT_LABELS)].sum(axis=1)),
        "melanoma_sensitivity": oracle.recall_score(labels == MELANOMA, answers == MELANOMA),
    }
    assert {name: one.value for name, one in found.scores.items()} == pytest.approx(expected, abs=1e-12)
    assert found.scores["malignant_auc"].n == min(malignant.sum(), (~malignant).sum())
    assert found.scores["melanoma_sensitivity"].n == (labels == MELANOMA).sum()
    assert all(one.ci_low <= one.value <= one.ci_high for one in found.scores.values())
    assert (found.n_images, found.n_lesions, found.n_classes) == (200, 200, 7)


def test_groups_of_each_dimension_add_up_to_the_whole_in_order() -> None:
    predictions, rows = make()
    rows = [replace(row, sex="", age_years=None) if i < 30 else row for i, row in enumerate(rows)]
    audit = judge_subgroups(predictions, rows, resamples=20)
    for dimension in ("sex", "age", "site", "dx_type", "image_size"):
        assert sum(one.n_images for one in audit.groups if one.dimension == dimension) == 400, dimension
    ages = [one.name for one in audit.groups if one.dimension == "age"]
    assert ages == ["under 30", "30-44", "45-59", "60-74", "75 and over", "unknown"]
    assert [one.name for one in audit.groups if one.dimension == "sex"][-1] == "unknown"
    assert group(audit, "image_size", "600x450").scores == audit.whole
    assert not group(audit, "image_size", "600x450").apart


@pytest.mark.parametrize(
    ("age_years", "band"),
    [(None, "unknown"), (0, "under 30"), (29.5, "under 30"), (30, "30-44"), (44.9, "30-44"), (60, "60-74"),
     (75, "75 and over"), (120, "75 and over")],
)  # fmt: skip
def test_age_bands(age_years: float | None, band: str) -> None:
    assert age_band(age_years) == band


def test_a_badly_served_group_is_flagged() -> None:
    predictions, rows = make(skill=4.0)
    logits = predictions.logits.copy()
    old = np.array([row.age_years >= 75 for row in rows])
    logits[old] = np.random.default_rng(1).normal(size=(old.sum(), 7))
    audit = judge_subgroups(replace(predictions, logits=logits), rows, resamples=200)
    assert {"accuracy", "balanced_accuracy"} <= set(group(audit, "age", "75 and over").apart)
    assert {"accuracy", "balanced_accuracy"} <= set(group(audit, "age", "75 and over").unexplained)
    assert not group(audit, "sex", "female").apart
    assert audit.chance_flags == pytest.approx(0.05 * audit.n_comparisons)


def test_flags_are_rare_where_nothing_differs() -> None:
    flags = compared = 0
    for seed in range(12):
        audit = judge_subgroups(*make(300, seed), resamples=200)
        flags += sum(len(one.apart) for one in audit.groups)
        compared += audit.n_comparisons
    assert flags <= 0.05 * compared


def test_class_mix_explains_an_easy_group() -> None:
    """Follow-up means nevus: the group's accuracy is the nevi's recall, as `expected` says."""
    predictions, rows = make()
    logits = predictions.logits.copy()
    logits[:, NEVUS] += 1.0 * (predictions.label == NEVUS)
    predictions = replace(predictions, logits=logits)
    rows = [replace(row, dx_type="follow_up" if row.label == NEVUS else "histo") for row in rows]
    found = group(judge_subgroups(predictions, rows, resamples=200), "dx_type", "follow_up")
    assert found.apart == ("accuracy", "balanced_accuracy")
    assert found.unexplained == ()
    assert found.n_classes == 1
    assert found.scores["accuracy"].value == pytest.approx(found.expected["accuracy"])
    assert found.scores["melanoma_sensitivity"] == Estimate(None, None, None, 0)
    assert found.scores["malignant_auc"] == Estimate(None, None, None, 0)


def test_expected_is_the_recalls_of_all_on_the_groups_classes() -> None:
    predictions, rows = make()
    answers = predictions.probs.argmax(axis=1)
    recall = oracle.recall_score(predictions.label, answers, average=None)
    inside = np.array([row.site == "face" for row in rows])
    found = group(judge_subgroups(predictions, rows, resamples=20), "site", "face")
    assert found.expected["accuracy"] == pytest.approx(recall[predictions.label[inside]].mean())
    assert found.expected["balanced_accuracy"] == pytest.approx(recall.mean())


def test_small_groups_are_listed_and_not_judged() -> None:
    predictions, rows = make()
    rows = [replace(row, site="ear") if i < 19 else replace(row, site="neck") for i, row in enumerate(rows)]
    audit = judge_subgroups(predictions, rows, resamples=20)
    ear = group(audit, "site", "ear")
    assert (ear.n_images, ear.scores, ear.apart, ear.judged) == (19, {}, (), False)
    assert group(audit, "site", "neck").judged


def test_one_lesion_has_no_interval_and_no_flag() -> None:
    predictions, rows = make(60)
    predictions = replace(predictions, lesion_id=("one",) * 60)
    audit = judge_subgroups(predictions, rows, resamples=20)
    assert audit.whole["accuracy"].ci_low is None
    assert audit.n_comparisons == 0
    assert not any(one.apart for one in audit.groups)


def test_sizes_come_from_the_catalogue_else_from_the_file(tmp_path: Path) -> None:
    predictions, rows = make(30)
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    rows[0] = replace(rows[0], width=0, height=0, path=tmp_path / "a.png")
    rows[1] = replace(rows[1], width=0, height=0, path=tmp_path / "gone.png")
    audit = judge_subgroups(predictions, rows, resamples=20)
    sizes = {one.name: one.n_images for one in audit.groups if one.dimension == "image_size"}
    assert sizes == {"600x450": 28, "40x30": 1, "unknown": 1}
    rows = [replace(row, width=100 + min(i, 12), height=100) for i, row in enumerate(rows)]
    audit = judge_subgroups(predictions, rows, resamples=20)
    sizes = {one.name: one.n_images for one in audit.groups if one.dimension == "image_size"}
    assert (len(sizes), sizes["112x100"], sizes["other"]) == (9, 18, 5)


def test_json_comes_back_and_says_what_cannot_be_audited() -> None:
    audit = judge_subgroups(*make(80), resamples=20, synthetic=True)
    assert SubgroupAudit.model_validate(audit.as_dict()) == audit
    assert "skin tone" in audit.statement
    assert audit.notice


def test_foreign_and_missing_predictions_are_refused() -> None:
    predictions, rows = make(30)
    with pytest.raises(DataError, match="found none for image-28, image-29"):
        judge_subgroups(predictions, rows[:28])
    none = Predictions((), (), np.zeros(0, np.int64), np.zeros((0, 7), np.float32))
    with pytest.raises(DataError, match="any image"):
        judge_subgroups(none, rows)
