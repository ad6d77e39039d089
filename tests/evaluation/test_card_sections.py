"""Results of every kind of judgement become sections of the card, each number with its n."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lentigo.core.predictions import Predictions
from lentigo.data.catalog import Row
from lentigo.evaluation import card_sections
from lentigo.evaluation.clinical import judge_clinically
from lentigo.evaluation.conformal import judge_sets
from lentigo.evaluation.explain import ExplanationCheck
from lentigo.evaluation.fit_calibration import cross_fitted, fit_calibration
from lentigo.evaluation.metrics import Estimate
from lentigo.evaluation.outliers import KindJudgement, OutlierGate, OutlierJudgement, ScoreJudgement
from lentigo.evaluation.robustness import KindRobustness, Robustness
from lentigo.evaluation.selective import judge_rule
from lentigo.evaluation.subgroups import judge_subgroups

FEW = {"resamples": 20}


def table(labels):
    labels = np.asarray(labels, dtype=np.int64)
    logits = np.random.default_rng(1).normal(size=(len(labels), 7)).astype(np.float32)
    logits[np.arange(len(labels)), labels] += 2.0
    names = tuple(f"i{i}" for i in range(len(labels)))
    return Predictions(names, names, labels, logits)


@pytest.fixture(scope="module")
def predictions():
    return table(np.arange(210) % 7)


@pytest.fixture(scope="module")
def decisions(predictions):
    return cross_fitted(predictions)


@pytest.fixture(scope="module")
def clinical(predictions, decisions):
    return judge_clinically(predictions.label, decisions.probs, predictions.lesion_id, **FEW)


@pytest.fixture(scope="module")
def rules(predictions, decisions):
    answers, lesions = decisions.probs.argmax(axis=1), predictions.lesion_id
    return {
        kind: judge_rule(predictions.label, answers, accepted, lesions, kind=kind, **FEW)
        for kind, accepted in decisions.accepted.items()
    }


@pytest.fixture(scope="module")
def audit(predictions):
    rows = [
        Row(name, Path("x.jpg"), int(label), name, sex="male" if i % 9 else "", width=10, height=10)
        for i, (name, label) in enumerate(zip(predictions.image_id, predictions.label, strict=True))
    ]
    return judge_subgroups(predictions, rows, **FEW)


def both(value):
    return {"accuracy": Estimate(value, 0.0, 1.0, 50), "balanced_accuracy": Estimate(value, value - 0.1, value, 50)}


@pytest.fixture(scope="module")
def robustness():
    kinds = tuple(
        KindRobustness(kind=kind, by_severity=(both(score),) * 5, mean=both(score), drop=both(0.1))
        for kind, score in (("jpeg", 0.7), ("pen_ink", 0.4))
    )
    return Robustness(
        split="val",
        n_images=50,
        n_lesions=50,
        n_available=200,
        severities=(1, 2, 3, 4, 5),
        clean=both(0.8),
        kinds=kinds,
        mean=both(0.55),
        drop=both(0.25),
        resamples=20,
        seed=0,
        interval="95%",
        synthetic=True,
    )


def names_of(section):
    return [score.name for score in section.scores]


def test_sections_carry_every_number_with_its_n(predictions, decisions, clinical, rules, audit, robustness):
    calibration = fit_calibration(predictions, **FEW)
    labels, lesions = predictions.label, predictions.lesion_id
    sets = {kind: judge_sets(labels, flags, lesions, **FEW) for kind, flags in decisions.sets.items()}
    sections = [
        card_sections.malignant_section(clinical, "val", "cross-fitted on val"),
        card_sections.calibration_section(calibration, {"calibrated": clinical.reliability, "raw": None}),
        card_sections.uncertainty_section(sets, rules, "val"),
        card_sections.subgroups_section(audit, "val"),
        card_sections.robustness_section(robustness),
    ]
    assert all(section.scores and score.found.n >= 0 for section in sections for score in section.scores)
    assert "malignant: AUC" in names_of(sections[0])
    assert "ranked by probabilities cross-fitted on val, so that an AUC may differ a little" in sections[0].text
    on_test = card_sections.malignant_section(clinical, "test", "frozen from val")
    assert "ranked by probabilities calibrated on val" in on_test.text
    assert "ranked by" not in card_sections.malignant_section(clinical, "val", "not calibrated").text
    assert any(name.endswith("for 95% sensitivity: specificity") for name in names_of(sections[0]))
    assert f"Temperature {calibration.temperature:.3f}, fitted on 210 val images" in sections[1].text
    assert not any(name.startswith("raw") for name in names_of(sections[1]))
    assert "class conditional sets: hold the true class" in names_of(sections[2])
    assert names_of(sections[3])[:2] == ["all", "sex: male"]
    assert "skin tone" in sections[3].text
    assert names_of(sections[4]) == ["untouched", "mean over all kinds", "mean loss", "pen ink", "jpeg"]
    assert "50 of 200 images" in sections[4].text


def test_sections_on_other_images_and_explanations():
    half = Estimate(0.5, 0.4, 0.6, 20)
    kind = KindJudgement(auroc=half, rejected=half)
    gate = OutlierGate(score="energy", threshold=1.0, pass_rate=0.95, n=20)
    judged = OutlierJudgement(
        chosen="energy",
        n_train=100,
        n_familiar=20,
        synthetic=False,
        scores={"energy": ScoreJudgement(gate=gate, kinds={"natural_photographs": kind})},
    )
    section = card_sections.outliers_section(judged)
    assert names_of(section) == ["natural photographs: AUC of the score", "natural photographs: rejected"]
    assert "95% of 20 val images" in section.text
    fields = [name for name, field in ExplanationCheck.model_fields.items() if field.annotation is Estimate]
    check = ExplanationCheck(n_images=4, n_lesions=4, seed=0, **dict.fromkeys(fields, half))
    assert len(card_sections.explanation_section(check).scores) == 4
