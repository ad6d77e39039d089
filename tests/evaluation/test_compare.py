"""Paired tests against oracles: naive resampling, scipy's binomial test, simulated truths."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lentigo.core.errors import ConfigError, DataError
from lentigo.core.predictions import Predictions
from lentigo.evaluation.arms import align
from lentigo.evaluation.compare import compare, paired_differences
from lentigo.evaluation.delong import TASKS, delong, task_scores
from lentigo.evaluation.evaluate import judge
from lentigo.evaluation.metrics import resample_weights
from lentigo.evaluation.resampling import (
    METRICS,
    arm_estimates,
    image_scores,
    mean_scores,
    resampled_scores,
    seed_weights,
)
from lentigo.evaluation.significance import bootstrap_p, holm, holm_over, mcnemar_p


def table(seed, skill, count=120, lesions=None):
    """Predictions on the same images for every seed; `skill` is added to the true class's logit."""
    labels = np.random.default_rng(99).integers(7, size=count)
    logits = np.random.default_rng(seed).normal(size=(count, 7)).astype(np.float32)
    logits[np.arange(count), labels] += skill
    names = tuple(f"image-{i}" for i in range(count))
    return Predictions(names, tuple(f"lesion-{i % (lesions or count)}" for i in range(count)), labels, logits)


def of_answers(right, lesions=None):
    """Predictions on images of classes 0 and 1 in turn, answered right where `right` (N,) says so."""
    count = len(right)
    labels = np.arange(count) % 2
    logits = 4 * np.eye(7, dtype=np.float32)[np.where(right, labels, 1 - labels)]
    return Predictions(
        tuple(f"image-{i:04d}" for i in range(count)),
        tuple(lesions or (f"lesion-{i}" for i in range(count))),
        labels,
        logits,
    )


def shuffled(one, seed):
    order = np.random.default_rng(seed).permutation(len(one))
    return Predictions(
        tuple(one.image_id[i] for i in order),
        tuple(one.lesion_id[i] for i in order),
        one.label[order],
        one.logits[order],
    )


def only(found):
    """The one comparison."""
    (one,) = found.comparisons
    return one


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_identical_arms_do_not_differ(n_seeds):
    tables = [table(seed, 1.0) for seed in range(n_seeds)]
    found = only(compare({"a": tables, "b": tables}, split="val", resamples=200))
    for name in METRICS:
        difference = found.metrics[name]
        assert (difference.value, difference.p, difference.p_holm) == (0.0, 1.0, 1.0)
        assert difference.finding == "no difference shown"
        assert (difference.ci_low, difference.non_inferior) == (None, None), "all resamples agree: no interval"
    assert (found.mcnemar.baseline_only, found.mcnemar.other_only, found.mcnemar.p) == (0, 0, 1.0)


def test_a_known_shift_is_found_in_both_directions():
    worse, better = of_answers(np.arange(200) % 10 < 6), of_answers(np.arange(200) % 10 < 8)
    up = only(compare({"a": [worse], "b": [better]}, split="val", resamples=500))
    down = only(compare({"b": [better], "a": [worse]}, split="val", resamples=500))
    for name in ("accuracy", "balanced_accuracy", "log_loss"):
        one, other = up.metrics[name], down.metrics[name]
        assert one.value == pytest.approx(-other.value)
        assert (one.ci_low, one.ci_high) == pytest.approx((-other.ci_high, -other.ci_low))
        assert one.p == other.p == pytest.approx(2 / 501)
        assert (one.finding, other.finding) == ("better", "worse")
        assert (one.non_inferior, other.non_inferior) == (True, False)
    assert up.metrics["accuracy"].value == pytest.approx(0.2)
    assert up.metrics["log_loss"].value < 0.0
    assert (up.mcnemar.baseline_only, up.mcnemar.other_only) == (0, 40)
    assert up.mcnemar.p == pytest.approx(2.0**-39)


@pytest.mark.parametrize("paired_seeds", [True, False])
def test_resampling_by_weights_equals_naive_resampling(paired_seeds):
    arms = {"a": [table(k, 0.8, 60, 40) for k in range(3)], "b": [table(k + 9, 1.1, 60, 40) for k in range(3)]}
    aligned = align(arms)
    found = resampled_scores(aligned, resamples=12, seed=4, paired_seeds=paired_seeds)
    weights = np.concatenate(list(resample_weights(aligned.lesion_id, 12, 4)), axis=1).astype(int)
    for number, (arm, trainings) in enumerate(aligned.probs.items()):
        times = np.rint(2 * seed_weights(3, 12, 4, 0 if paired_seeds else number)).astype(int)
        for b in range(12):
            rows, seeds = np.repeat(np.arange(60), weights[:, b]), np.repeat(np.arange(3), times[:, b])
            naive = [image_scores(aligned.label[rows], trainings[k][rows]) for k in seeds]
            for name in METRICS:
                assert found[arm][name][b] == pytest.approx(np.mean([one[name][0] for one in naive]), abs=1e-12)


def test_trainings_are_drawn_without_bias_and_not_with_the_lesions():
    shares = seed_weights(4, 20_000, 7)
    np.testing.assert_allclose(shares.sum(axis=0), 1.0)
    np.testing.assert_allclose(shares.mean(axis=1), 0.25, atol=0.01)
    # The mean of K values of variance s^2 (divisor K - 1) has variance s^2 / K; that is what a resample must show.
    values = np.array([0.1, 0.5, 0.2, 0.9])
    assert (values @ shares).var() == pytest.approx(values.var(ddof=1) / 4, rel=0.05)
    assert not np.array_equal(seed_weights(4, 50, 7, 0), seed_weights(4, 50, 7, 1))
    np.testing.assert_array_equal(seed_weights(1, 5, 7), np.ones((1, 5)))


@pytest.mark.parametrize("n_seeds", [1, 4])
def test_the_interval_covers_the_true_difference(n_seeds):
    """Both arms right with a chance of 0.7 and 0.76, alike on part of the images; trainings vary a little."""
    hits, rounds = 0, 60
    for number in range(rounds):
        generator = np.random.default_rng(number)
        hardness = generator.random(90)
        arms = {"a": [], "b": []}
        for _ in range(n_seeds):
            luck = generator.normal(0.0, 0.02)
            for (name, tables), chance in zip(arms.items(), (0.7, 0.76), strict=True):
                noise = np.where(np.arange(90) % 3 == 0, hardness, generator.random(90))
                tables.append(of_answers(noise < chance + (luck if name == "b" else 0.0)))
        accuracy = only(compare(arms, split="val", resamples=250, seed=number)).metrics["accuracy"]
        hits += accuracy.ci_low <= 0.06 <= accuracy.ci_high
    # 95% of 60 is 57; fewer than 52 would happen by chance in less than one of a hundred such tests.
    assert hits >= 52


def test_equal_systems_are_seldom_called_different():
    wrong = 0
    for number in range(60):
        generator = np.random.default_rng(number)
        arms = {name: [of_answers(generator.random(100) < 0.7)] for name in "ab"}
        wrong += only(compare(arms, split="val", resamples=250, seed=number)).metrics["accuracy"].p < 0.05
    assert wrong <= 8


def test_seeds_that_disagree_widen_the_interval():
    def widths(levels, **options):
        arms = {
            "a": [of_answers(np.arange(200) % 10 < 7)] * 4,
            "b": [of_answers(np.arange(200) % 20 < level) for level in levels],
        }
        accuracy = only(compare(arms, split="val", resamples=400, **options)).metrics["accuracy"]
        assert accuracy.value == pytest.approx(0.05)
        return accuracy.ci_high - accuracy.ci_low

    assert widths((11, 13, 17, 19)) > 2 * widths((15, 15, 15, 15))


def test_seeds_that_belong_together_are_drawn_together():
    """Both arms rise and fall with the seed; only the paired draw sees that the difference is steady."""
    arms = {
        "a": [of_answers(np.arange(300) % 30 < level) for level in (10, 16, 22)],
        "b": [of_answers(np.arange(300) % 30 < level + 2) for level in (10, 16, 22)],
    }
    paired = only(compare(arms, split="val", resamples=400)).metrics["accuracy"]
    own = only(compare(arms, split="val", resamples=400, paired_seeds=False)).metrics["accuracy"]
    assert paired.value == own.value == pytest.approx(2 / 30)
    assert (paired.finding, own.finding) == ("better", "no difference shown")


def test_lesions_with_many_images_widen_the_interval():
    right = {"a": np.random.default_rng(1).random(60) < 0.7, "b": np.random.default_rng(2).random(60) < 0.75}
    width = {}
    for kind, lesions in {"image": None, "lesion": [f"lesion-{i // 4}" for i in range(240)]}.items():
        arms = {name: [of_answers(np.repeat(one, 4), lesions)] for name, one in right.items()}
        found = only(compare(arms, split="val", resamples=400))
        assert found.mcnemar.one_image_per_lesion == (kind == "image")
        width[kind] = found.metrics["accuracy"].ci_high - found.metrics["accuracy"].ci_low
    assert width["lesion"] > 1.6 * width["image"]


def test_the_order_of_rows_changes_nothing():
    arms = {"a": [table(k, 1.0, lesions=80) for k in range(2)], "b": [table(k + 5, 1.2, lesions=80) for k in range(2)]}
    mixed = {name: [shuffled(one, k) for k, one in enumerate(tables)] for name, tables in arms.items()}
    assert compare(arms, split="val", resamples=150) == compare(mixed, split="val", resamples=150)


def test_same_seed_same_result_and_more_systems_change_only_holm():
    a, b, c = [table(1, 1.0)], [table(2, 1.2)], [table(3, 1.4)]
    two = compare({"a": a, "b": b}, split="val", resamples=150, seed=3)
    assert two == compare({"a": a, "b": b}, split="val", resamples=150, seed=3)
    assert two != compare({"a": a, "b": b}, split="val", resamples=150, seed=4)
    three = compare({"a": a, "b": b, "c": c}, split="val", resamples=150, seed=3)
    assert [one.other for one in three.comparisons] == ["b", "c"]
    for name in METRICS:
        p_values = [one.metrics[name].p for one in three.comparisons]
        assert p_values[0] == only(two).metrics[name].p
        assert [one.metrics[name].p_holm for one in three.comparisons] == holm(p_values)


def test_a_finding_needs_the_corrected_p():
    """One resample of a hundred on the wrong side: p is 0.04, and 0.08 among two arms."""
    generator = np.random.default_rng(0)
    base = {"accuracy": np.full(100, 0.5)}
    better = {"accuracy": np.r_[0.49, 0.5 + generator.uniform(0.01, 0.1, 99)]}
    points = {"a": {"accuracy": 0.5}, "b": {"accuracy": 0.55}, "c": {"accuracy": 0.55}}
    alone = paired_differences("accuracy", "a", {k: points[k] for k in "ab"}, {"a": base, "b": better}, 100)["b"]
    assert (alone.p, alone.finding) == (alone.p_holm, "better")
    for one in paired_differences("accuracy", "a", points, {"a": base, "b": better, "c": better}, 100).values():
        assert one.p == pytest.approx(4 / 101)
        assert one.p_holm == pytest.approx(8 / 101)
        assert one.finding == "no difference shown"


def test_the_result_is_frozen_and_plain():
    found = compare({"a": [table(1, 1.0)], "b": [table(2, 1.2)]}, split="val", resamples=100, seed=5, synthetic=True)
    content = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert type(found).model_validate(content) == found
    assert [content[key] for key in ("n_images", "n_lesions", "n_seeds", "resamples", "seed")] == [120, 120, 1, 100, 5]
    assert found.notice
    with pytest.raises(ValueError, match="frozen"):
        found.margin = 1.0


def test_not_worse_looks_at_the_bad_end_of_the_interval():
    found = only(compare({"a": [table(1, 1.0)], "b": [table(2, 1.0)]}, split="val", resamples=200, margin=0.3))
    accuracy, loss = found.metrics["accuracy"], found.metrics["log_loss"]
    for difference, loss_shown in ((accuracy, -accuracy.ci_low), (loss, loss.ci_high)):
        assert loss_shown > 0
        assert difference.not_worse(loss_shown + 1e-9)
        assert not difference.not_worse(loss_shown)
    assert accuracy.non_inferior == accuracy.not_worse(0.3)
    assert accuracy.not_worse() == accuracy.not_worse(0.01)


@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (3, 3), (5, 6), (2, 14), (40, 71), (900, 1100), (5, 3000)])
def test_mcnemar_is_scipys_binomial_test(counts):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(counts[0], sum(counts)).pvalue if sum(counts) else 1.0
    assert mcnemar_p(*counts) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_p(*counts) == mcnemar_p(*counts[::-1])


def test_mcnemar_by_hand():
    assert mcnemar_p(1, 5) == pytest.approx(2 * (1 + 6) / 64)


def test_mcnemar_of_several_trainings_takes_their_mean_probabilities():
    """Two of three trainings err on image 0, but the third is surer."""
    sure, unsure = table(0, 0.0, 2), table(0, 0.0, 2)
    right = np.eye(7, dtype=np.float32)[sure.label]
    sure, unsure = replace(sure, logits=9 * right), replace(unsure, logits=-0.1 * right)
    found = only(compare({"a": [unsure] * 3, "b": [unsure, sure, unsure]}, split="val", resamples=100))
    assert (found.mcnemar.baseline_only, found.mcnemar.other_only, found.mcnemar.p) == (0, 2, 0.5)


def test_delong_stands_beside_and_is_corrected_over_the_arms():
    a, b, c = [table(1, 0.5)], [table(2, 0.8)], [table(3, 2.0)]
    found = compare({"a": a, "b": b, "c": c}, split="val", resamples=100).comparisons
    for task, tests in {task: [one.delong[task] for one in found] for task in TASKS}.items():
        assert [test.p_holm for test in tests] == holm([test.p for test in tests])
        positive, expected = task_scores(a[0].label, a[0].probs, task)
        alone = delong(positive, expected, task_scores(b[0].label, b[0].probs, task)[1], a[0].lesion_id)
        assert tests[0].p == pytest.approx(alone.p, abs=1e-12)
    malignant, bootstrap = found[1].delong["malignant"], found[1].metrics["malignant_auc"]
    assert malignant.value == pytest.approx(bootstrap.value, abs=1e-12)
    assert malignant.ci_low == pytest.approx(bootstrap.ci_low, abs=0.03)


def test_p_counts_both_sides_and_adds_one():
    assert bootstrap_p(np.array([-1.0, *[2.0] * 98])) == pytest.approx(2 * 2 / 100)
    assert bootstrap_p(np.array([1.0, 2.0, np.nan])) == pytest.approx(2 / 3)
    assert bootstrap_p(np.array([0.0, 0.0, 1.0])) == 1.0
    assert bootstrap_p(np.zeros(10)) == 1.0
    assert bootstrap_p(np.full(10, 0.2)) is None
    assert bootstrap_p(np.array([np.nan])) is None


def test_p_agrees_with_the_interval():
    for seed in range(12):
        found = only(compare({"a": [table(seed, 1.0)], "b": [table(seed + 50, 1.25)]}, split="val", resamples=400))
        for difference in found.metrics.values():
            excludes_zero = difference.ci_low > 0.0 or difference.ci_high < 0.0
            if not 0.04 < difference.p < 0.06:
                assert excludes_zero == (difference.p < 0.05)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
    with pytest.raises(DataError, match="expected p-values"):
        holm([0.1, float("nan")])


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_and_stays_between_p_and_bonferroni(p_values):
    corrected = holm(p_values)
    for p, one in zip(p_values, corrected, strict=True):
        assert p <= one <= min(1.0, len(p_values) * p) + 1e-12
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(corrected)[order]) >= 0)


def test_an_undefined_p_stays_in_the_family():
    assert holm_over({"a": 0.02, "b": None, "c": 0.5}) == {"a": pytest.approx(0.06), "b": None, "c": 1.0}
    assert holm_over({}) == {}


def test_scores_of_one_training_are_those_of_its_judgement():
    arms = {"a": [table(1, 1.0, lesions=80)], "b": [shuffled(table(2, 1.5, lesions=80), 3)]}
    aligned = align(arms)
    found = arm_estimates(aligned, mean_scores(aligned), resampled_scores(aligned, resamples=150, seed=2))
    for name, (one,) in arms.items():
        judged = judge(one, split="val", resamples=150, seed=2).metrics
        for metric in set(METRICS) - {"malignant_auc"}:
            for field in ("value", "ci_low", "ci_high", "n"):
                assert getattr(found[name][metric], field) == pytest.approx(getattr(judged[metric], field), abs=1e-12)
        malignant = found[name]["malignant_auc"]
        assert malignant.ci_low < malignant.value < malignant.ci_high
        assert malignant.n == np.isin(one.label, [0, 1, 4]).sum()


def test_malignant_auc_may_decide():
    found = compare({"a": [table(1, 0.5)], "b": [table(2, 2.5)]}, split="val", metric="malignant_auc", resamples=150)
    assert only(found).metrics["malignant_auc"].finding == "better"


def test_undefined_scores_are_null():
    labels = np.full(30, 5)
    names = tuple(str(i) for i in range(30))
    arms = {
        name: [Predictions(names, names, labels, np.random.default_rng(k).normal(size=(30, 7)).astype(np.float32))]
        for k, name in enumerate("ab")
    }
    auc = only(compare(arms, split="val", resamples=100)).metrics["macro_auc"]
    assert (auc.baseline, auc.value, auc.ci_low, auc.p, auc.p_holm, auc.non_inferior) == (None,) * 6
    assert auc.finding == "undefined"


def test_one_lesion_proves_nothing():
    lesions = ["lesion"] * 20
    arms = {"a": [of_answers(np.arange(20) < 5, lesions)], "b": [of_answers(np.arange(20) < 15, lesions)]}
    accuracy = only(compare(arms, split="val", resamples=100)).metrics["accuracy"]
    assert accuracy.value == pytest.approx(0.5)
    assert (accuracy.ci_low, accuracy.p, accuracy.non_inferior, accuracy.finding) == (None, None, None, "undefined")


def test_tables_that_do_not_fit_are_refused_with_all_problems():
    base, few = table(1, 1.0, 20), table(2, 1.0, 18)
    relabelled = replace(base, label=(base.label + (np.arange(20) == 3)) % 7)
    renamed = replace(base, lesion_id=("other", *base.lesion_id[1:]))
    repeated = replace(base, image_id=("image-1", *base.image_id[1:]))
    foreign = replace(base, image_id=("elsewhere", *base.image_id[1:]))
    arms = {"a": [base] * 5, "b": [few, relabelled, renamed, repeated, foreign]}
    with pytest.raises(DataError) as caught:
        compare(arms, split="val")
    for part in (
        "b, training 1: 2 images missing: image-18, image-19",
        "b, training 2: 1 other labels: image-3",
        "b, training 3: 1 other lesions: image-0",
        "b, training 4: 1 images missing: image-0",
        "b, training 4: 1 rows repeat an image_id",
        "b, training 5: 1 images too many: elsewhere",
    ):
        assert part in caught.value.message
    assert "lentigo evaluate" in caught.value.remedy


@pytest.mark.parametrize(
    "arms",
    [
        {},
        {"a": [table(1, 1.0, 5)]},
        {"a": [], "b": []},
        {"a": [table(1, 1.0, 5)], "b": [table(1, 1.0, 5), table(2, 1.0, 5)]},
    ],
)
def test_arms_must_be_two_and_of_equal_number(arms):
    with pytest.raises(DataError, match="equally many trainings"):
        compare(arms, split="val")


def test_no_images_at_all():
    with pytest.raises(DataError, match="found none in a"):
        compare({"a": [table(1, 1.0, 0)], "b": [table(2, 1.0, 0)]}, split="val")


@pytest.mark.parametrize("options", [{"metric": "recall"}, {"margin": 0.0}, {"margin": float("nan")}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ConfigError, match="expected a m"):
        compare({"a": [table(1, 1.0, 9)], "b": [table(2, 1.0, 9)]}, split="val", **options)


def test_2000_resamples_of_1000_images_and_5_trainings_take_seconds_at_most():
    arms = {name: [table(k + 10 * skill, skill, 1000, 800) for k in range(5)] for name, skill in (("a", 1), ("b", 2))}
    start = time.process_time()
    compare(arms, split="val")
    assert time.process_time() - start < 10.0
