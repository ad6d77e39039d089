"""metrics.json and the text report."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import classification_report as oracle_report

from lentigo.core.errors import DataError
from lentigo.core.predictions import Predictions
from lentigo.core.taxonomy import CLASS_CODES, CLASSES
from lentigo.data.synthetic import SYNTHETIC_NOTICE
from lentigo.evaluation.evaluate import Judgement, classification_report, judge


def predictions_of(labels, answers, lesions=None):
    labels = np.asarray(labels, dtype=np.int64)
    names = tuple(f"image-{i}" for i in range(len(labels)))
    logits = 3.0 * np.eye(7, dtype=np.float32)[np.asarray(answers, dtype=np.int64)]
    return Predictions(names, tuple(lesions or names), labels, logits.reshape(-1, 7))


@pytest.fixture(scope="module")
def judgement():
    generator = np.random.default_rng(0)
    labels = generator.choice(7, 200, p=[0.1, 0.1, 0.1, 0.05, 0.15, 0.4, 0.1])
    answers = np.where(generator.random(200) < 0.6, labels, generator.integers(7, size=200))
    lesions = [f"lesion-{i // 2}" for i in range(200)]
    return judge(predictions_of(labels, answers, lesions), split="val", resamples=100, seed=1)


def test_metrics_json_has_its_schema(judgement):
    content = json.loads(json.dumps(judgement.as_dict(), allow_nan=False))
    assert content["split"] == "val"
    assert (content["n_images"], content["n_lesions"]) == (200, 100)
    assert (content["resamples"], content["seed"]) == (100, 1)
    assert content["interval"] == "95% lesion-cluster bootstrap"
    names = {
        "accuracy",
        "balanced_accuracy",
        "macro_precision",
        "macro_recall",
        "macro_f1",
        "macro_auc",
        "log_loss",
    }
    assert names <= set(content["metrics"])
    for one in content["metrics"].values():
        assert set(one) == {"value", "ci_low", "ci_high", "n"}
        assert one["ci_low"] <= one["value"] <= one["ci_high"]
    assert list(content["per_class"]) == list(CLASS_CODES) == content["classes"]
    for code, one in content["per_class"].items():
        assert set(one) == {"n", "n_lesions", "precision", "recall", "f1", "auc", "accuracy"}, code
        assert one["accuracy"] == one["recall"]
    assert np.sum(content["confusion"]) == 200
    assert np.sum(content["confusion"], axis=1).tolist() == [one["n"] for one in content["per_class"].values()]


def test_metrics_json_is_read_back(judgement):
    assert Judgement.from_dict(json.loads(json.dumps(judgement.as_dict()))) == judgement


def test_broken_metrics_json_names_the_places(judgement):
    content = judgement.as_dict()
    del content["split"]
    content["per_class"]["mel"]["recall"] = "high"
    with pytest.raises(DataError, match=r"split, per_class\.mel\.recall"):
        Judgement.from_dict(content)


def test_baseline_always_answers_the_most_frequent_class(judgement):
    baseline = judgement.majority_baseline
    assert baseline.code == "nv"
    assert baseline.accuracy == pytest.approx(judgement.per_class["nv"].n / 200)
    assert baseline.balanced_accuracy == pytest.approx(1 / 7)


@pytest.mark.parametrize("classes", [range(7), (1, 4, 5), (5,)])
def test_text_report_is_scikit_learns_and_goes_on(classes):
    generator = np.random.default_rng(2)
    labels, answers = generator.choice(list(classes), (2, 80))
    occurring = sorted({*labels, *answers})
    text = classification_report(judge(predictions_of(labels, answers), split="val", resamples=10))
    names = [CLASSES[c].label_text for c in occurring]
    assert text.startswith(oracle_report(labels, answers, target_names=names, zero_division=0))
    assert "Accuracy per class" in text
    absent = [lesion_class.label_text for c, lesion_class in enumerate(CLASSES) if c not in occurring]
    assert ("Neither images nor answers: " + ", ".join(absent) in text) == bool(absent)


def test_text_report_names_undefined_scores():
    text = classification_report(judge(predictions_of([4, 4], [4, 5]), split="val", resamples=10))
    assert "Undefined, printed as 0.00 (no image or no answer): NV" in text
    assert "50.0%  (1 of 2)" in text
    assert "(no images)" in text


def test_one_image_is_judged():
    found = judge(predictions_of([4], [4]), split="val", resamples=10)
    assert found.metrics["accuracy"].value == 1.0
    assert found.metrics["accuracy"].ci_low is None
    assert found.metrics["macro_auc"].value is None
    assert json.dumps(found.as_dict(), allow_nan=False)


def test_no_images_are_refused():
    with pytest.raises(DataError, match="'test'; found none"):
        judge(predictions_of([], []), split="test")


def test_scores_of_drawings_say_so():
    predictions = predictions_of([4, 5, 5], [4, 5, 4])
    drawn, real = judge(predictions, split="val", synthetic=True), judge(predictions, split="val")
    assert drawn.as_dict()["synthetic"] is True
    assert Judgement.from_dict(drawn.as_dict()).notice == SYNTHETIC_NOTICE
    assert classification_report(drawn).rstrip().endswith(SYNTHETIC_NOTICE)
    assert real.as_dict()["synthetic"] is False
    assert SYNTHETIC_NOTICE not in classification_report(real)
