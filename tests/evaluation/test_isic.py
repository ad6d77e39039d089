"""Scores against isic-challenge-scoring, and what its CSV rules accept and refuse."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isic_challenge_scoring import metrics as oracle
from isic_challenge_scoring.classification import ClassificationMetric, ClassificationScore
from isic_challenge_scoring.confusion import create_binary_confusion_matrix
from isic_challenge_scoring.load_csv import parse_csv
from isic_challenge_scoring.types import ScoreError

from lentigo.core.errors import DataError
from lentigo.core.taxonomy import CLASS_CODES, ISIC_2018_COLUMNS, parse_label
from lentigo.evaluation.isic import CLASS_SCORES, IMAGE_BOOTSTRAP, isic_scores, judge_isic
from lentigo.evaluation.isic_csv import read_groups, read_predictions, read_truth
from lentigo.evaluation.metrics import Estimate

TOLERANCE = 1e-12
LABELS = [parse_label(column) for column in ISIC_2018_COLUMNS]
HEADER = "image," + ",".join(ISIC_2018_COLUMNS)


@pytest.fixture(autouse=True, scope="module")
def pandas_3():
    """The scorer was written before pandas 3, which has renamed this method."""
    with pytest.MonkeyPatch.context() as patch:
        if not hasattr(pd.DataFrame, "applymap"):
            patch.setattr(pd.DataFrame, "applymap", pd.DataFrame.map, raising=False)
        yield


def frame(values, names):
    return pd.DataFrame(values, columns=list(ISIC_2018_COLUMNS), index=names)


def expected_scores(labels, probs, weights):
    """The same numbers by the archive's scorer, class by class; nan where it has no honest one."""
    names = [f"ISIC_{i}" for i in range(len(labels))]
    truth = frame(np.eye(7)[labels][:, LABELS], names)
    table = frame(probs[:, LABELS], names)
    weight = pd.Series(weights, index=names)
    found = {f"class/{name}": np.full(7, np.nan) for name in CLASS_SCORES}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found["balanced_accuracy"] = oracle.balanced_multiclass_accuracy(truth, table, weight)
        for label, column in zip(LABELS, ISIC_2018_COLUMNS, strict=True):
            one, other = truth[column], table[column]
            cells = create_binary_confusion_matrix(one.gt(0.5).to_numpy(), other.gt(0.5).to_numpy(), weight.to_numpy())
            positives, negatives = weights[labels == label].sum(), weights[labels != label].sum()
            called = cells["TP"] + cells["FP"]
            if positives and negatives:
                found["class/auc"][label] = oracle.auc(one, other, weight)
                found["class/auc_sens_80"][label] = oracle.auc_above_sensitivity(one, other, weight, 0.8)
            if positives:
                found["class/ap"][label] = oracle.average_precision(one, other, weight)
                found["class/sensitivity"][label] = oracle.binary_sensitivity(cells)
            if negatives:
                found["class/specificity"][label] = oracle.binary_specificity(cells)
            if positives or called:
                found["class/dice"][label] = oracle.binary_dice(cells)
            if called:
                found["class/ppv"][label] = oracle.binary_ppv(cells)
            if cells["TN"] + cells["FN"]:
                found["class/npv"][label] = oracle.binary_npv(cells)
            found["class/accuracy"][label] = oracle.binary_accuracy(cells)
    return found


def agree(labels, probs, weights):
    found = isic_scores(labels, probs, weights[:, None])
    for name, values in expected_scores(labels, probs, weights).items():
        np.testing.assert_allclose(found[name][0], values, rtol=0, atol=TOLERANCE, err_msg=name)


def make(seed, count, present=range(7)):
    generator = np.random.default_rng(seed)
    labels = generator.choice(np.asarray(list(present)), count).astype(np.int64)
    probs = generator.random((count, 7)) * 0.7
    probs[np.arange(count), labels] += 0.3 * generator.random(count)
    return labels, probs


CASES = {
    "plain": make(0, 120),
    "many": make(1, 400),
    "an absent class": make(2, 60, present=(0, 1, 2, 4, 5, 6)),
    "one class": make(3, 12, present=(5,)),
    "two images": make(4, 2),
    "coarse": (make(5, 90)[0], np.round(make(5, 90)[1], 1)),
    "all tied": (make(6, 30)[0], np.full((30, 7), 0.5)),
    "zeros and ones": (make(7, 80)[0], np.round(make(7, 80)[1])),
    "one half": (make(8, 40)[0], np.where(make(8, 40)[1] > 0.5, 0.5, 0.25)),
    "perfect": (make(9, 40)[0], np.eye(7)[make(9, 40)[0]]),
    "worst": (make(10, 40)[0], 1.0 - np.eye(7)[make(10, 40)[0]]),
    "a hair apart": (make(11, 30)[0], 0.5 + make(11, 30)[1] * 1e-15),
    "tiny": (make(12, 50)[0], make(12, 50)[1] * 1e-300),
}


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_archives_scorer(case):
    labels, probs = CASES[case]
    agree(labels, probs, np.ones(len(labels)))


@pytest.mark.parametrize("case", ["plain", "coarse", "an absent class", "one half"])
def test_agrees_with_the_archives_scorer_on_weighted_images(case):
    labels, probs = CASES[case]
    agree(labels, probs, np.random.default_rng(1).integers(0, 3, len(labels)).astype(np.float64))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_agrees_on_whatever_comes(data):
    count = data.draw(st.integers(1, 12))
    values = st.sampled_from([0.0, 0.1, 0.3, 0.5, np.nextafter(0.5, 1.0), 0.7, 1.0])
    labels = np.array(data.draw(st.lists(st.integers(0, 6), min_size=count, max_size=count)), dtype=np.int64)
    rows = st.lists(values, min_size=7, max_size=7)
    probs = np.array(data.draw(st.lists(rows, min_size=count, max_size=count)))
    agree(labels, probs, np.ones(count))


def csv_of(labels, values):
    names = [f"ISIC_{i:07d}" for i in range(len(labels))]
    lines = [f"{name}," + ",".join(repr(float(v)) for v in row) for name, row in zip(names, values, strict=True)]
    return "\n".join([HEADER, *lines]) + "\n"


@pytest.mark.filterwarnings("ignore")
def test_files_score_as_the_archives_scorer_does(tmp_path):
    labels, probs = make(13, 150)
    truth_text, text = csv_of(labels, np.eye(7)[labels][:, LABELS]), csv_of(labels, probs[:, LABELS])
    # The last in order: the scorer sorts images but not their weights, so that it takes the truth to be sorted.
    truth_text = truth_text.replace("ISIC_0000149", "ISIC_0035068")
    text = text.replace("ISIC_0000149", "ISIC_0035068.jpg").replace("ISIC_0000009", "ISIC_0000009.JPG")
    lines = text.splitlines()
    text = "\n".join([lines[0], *reversed(lines[1:])]) + "\n"
    (tmp_path / "truth.csv").write_text(truth_text)
    (tmp_path / "predictions.csv").write_text(text)
    score = ClassificationScore.from_stream(
        io.StringIO(truth_text), io.StringIO(text), ClassificationMetric.BALANCED_ACCURACY
    )
    truth = read_truth(tmp_path / "truth.csv")
    found = judge_isic(
        truth.label, read_predictions(tmp_path / "predictions.csv", truth.image_id), weights=truth.weight, resamples=50
    )
    assert (found.n_images, found.n_left_out, found.n_lesions, found.interval) == (149, 1, None, IMAGE_BOOTSTRAP)
    assert found.balanced_accuracy.value == pytest.approx(score.overall, abs=TOLERANCE)
    for column, label in zip(ISIC_2018_COLUMNS, LABELS, strict=True):
        for name in CLASS_SCORES:
            value = found.per_class[CLASS_CODES[label]][name].value
            assert value == pytest.approx(score.per_category.loc[column, name], abs=TOLERANCE), (column, name)
    for name in CLASS_SCORES:
        assert found.macro[name].value == pytest.approx(score.macro_average[name], abs=TOLERANCE), name


def test_weights_of_the_truth_count(tmp_path):
    labels, probs = make(14, 40)
    weights = np.random.default_rng(2).random(40).round(3)
    weights[3] = 0.0
    rows = csv_of(labels, np.eye(7)[labels][:, LABELS]).splitlines()
    text = "\n".join(
        [rows[0] + ",score_weight,validation_weight", *(f"{r},{w},0.0" for r, w in zip(rows[1:], weights, strict=True))]
    )
    (tmp_path / "truth.csv").write_text(text)
    truth = read_truth(tmp_path / "truth.csv")
    found = judge_isic(truth.label, probs, weights=truth.weight, resamples=20)
    expected = expected_scores(labels, probs, weights)
    assert found.balanced_accuracy.value == pytest.approx(expected["balanced_accuracy"], abs=TOLERANCE)
    assert found.per_class["nv"]["auc_sens_80"].value == pytest.approx(
        expected["class/auc_sens_80"][parse_label("nv")], abs=TOLERANCE
    )
    assert found.n_left_out == 1


def test_a_tie_for_the_highest_is_wrong():
    labels = np.array([5, 5, 0, 0])
    probs = np.eye(7)[labels]
    probs[1, 4] = 1.0
    found = judge_isic(labels, probs, resamples=20)
    assert found.balanced_accuracy.value == 0.75
    assert (found.n_ties, found.accuracy.value) == (1, 0.75)


def test_undefined_is_none_with_its_n_where_the_scorer_gives_one():
    labels, probs = np.array([5, 5, 5]), np.eye(7)[[5, 5, 4]] * 0.4
    found = judge_isic(labels, probs, resamples=20)
    nevus = found.per_class["nv"]
    assert nevus["ppv"] == Estimate(None, None, None, 0)
    assert nevus["specificity"] == Estimate(None, None, None, 0)
    assert nevus["auc"].value is None
    assert found.per_class["df"]["sensitivity"] == Estimate(None, None, None, 0)
    assert found.balanced_accuracy.value == pytest.approx(2 / 3)
    assert found.macro["auc"].value is None


def test_lesions_widen_the_interval():
    labels, probs = make(15, 40)
    labels, probs = np.repeat(labels, 6), np.repeat(probs, 6, axis=0)
    lesions = np.repeat(np.arange(40), 6).astype(str)
    of_lesions, of_images = (judge_isic(labels, probs, groups=groups, resamples=200) for groups in (lesions, None))
    assert (of_lesions.n_lesions, of_images.n_lesions) == (40, None)
    assert of_lesions.balanced_accuracy.value == of_images.balanced_accuracy.value
    widths = [one.balanced_accuracy.ci_high - one.balanced_accuracy.ci_low for one in (of_lesions, of_images)]
    assert widths[0] > 1.8 * widths[1]


@pytest.mark.parametrize(
    ("labels", "probs", "weights"),
    [
        (np.array([0]), np.full((1, 7), 1.5), None),
        (np.array([0]), np.full((1, 7), np.nan), None),
        (np.array([7]), np.full((1, 7), 0.5), None),
        (np.array([0, 1]), np.full((1, 7), 0.5), None),
        (np.array([0]), np.full((1, 7), 0.5), np.zeros(1)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(labels, probs, weights):
    with pytest.raises(DataError):
        judge_isic(labels, probs, weights=weights)


GOOD = "a,0.1,0.2,0.3,0.4,0.5,0.6,0.7"
OTHER = "b,0.0,1.0,0.0,0.0,0.0,0.0,0.0"
PREDICTIONS = {
    "good": ([HEADER, GOOD, OTHER], True),
    "other order of columns": (
        ["NV,image,MEL,BCC,AKIEC,BKL,DF,VASC", "0.1,a,0.2,0,0,0,0,0", "1,b,0,.5,.5,.5,.5,.5"],
        True,
    ),
    "suffix": ([HEADER, GOOD.replace("a,", "a.jpg,"), OTHER], True),
    "exponents": ([HEADER, GOOD.replace("0.1", "1e-1"), OTHER], True),
    "blank lines": ([HEADER, "", GOOD, "", OTHER, ""], True),
    "no image column": ([HEADER.replace("image", "id"), GOOD, OTHER], False),
    "lower case": ([HEADER.lower(), GOOD, OTHER], False),
    "missing column": ([HEADER.removesuffix(",VASC"), GOOD.removesuffix(",0.7"), OTHER.removesuffix(",0.0")], False),
    "extra column": ([HEADER + ",UNK", GOOD + ",0.1", OTHER + ",0.1"], False),
    "whole numbers": ([HEADER, GOOD.replace("0.1", "0"), OTHER.replace("b,0.0", "b,1")], False),
    "text": ([HEADER, GOOD.replace("0.1", "high"), OTHER], False),
    "underscore": ([HEADER, GOOD.replace("0.1", "0_1"), OTHER], False),
    "true": ([HEADER, GOOD.replace("0.1", "True"), OTHER.replace("b,0.0", "b,False")], False),
    "empty": ([HEADER, GOOD.replace("0.1", ""), OTHER], False),
    "nan": ([HEADER, GOOD.replace("0.1", "nan"), OTHER], False),
    "above": ([HEADER, GOOD.replace("0.1", "1.00001"), OTHER], False),
    "below": ([HEADER, GOOD.replace("0.1", "-0.1"), OTHER], False),
    "infinite": ([HEADER, GOOD.replace("0.1", "inf"), OTHER], False),
    "twice": ([HEADER, GOOD, OTHER, OTHER], False),
    "twice by suffix": ([HEADER, GOOD, OTHER, OTHER.replace("b,", "b.jpg,")], False),
    "missing image": ([HEADER, GOOD], False),
    "extra image": ([HEADER, GOOD, OTHER, OTHER.replace("b,", "c,")], False),
    "short row": ([HEADER, GOOD, "b,0.0,1.0"], False),
    "no rows": ([HEADER], False),
    "nothing": ([], False),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", PREDICTIONS)
def test_files_are_accepted_and_refused_as_by_the_archives_scorer(case, tmp_path):
    lines, good = PREDICTIONS[case]
    text = "".join(f"{line}\n" for line in lines)
    (tmp_path / "p.csv").write_text(text)

    def theirs():
        table = parse_csv(io.StringIO(text), pd.Index(ISIC_2018_COLUMNS))
        if set(table.index) != {"a", "b"}:
            raise ScoreError("images")
        return table.loc[["a", "b"]].to_numpy()

    if good:
        np.testing.assert_array_equal(read_predictions(tmp_path / "p.csv", ("a", "b"))[:, LABELS], theirs())
        return
    with pytest.raises(DataError) as refused:
        read_predictions(tmp_path / "p.csv", ("a", "b"))
    assert refused.value.exit_code == 3
    with pytest.raises(ScoreError):
        theirs()


def test_all_problems_of_the_predictions_at_once(tmp_path):
    rows = [
        HEADER,
        "a,0.1,0.2,x,0.4,0.5,0.6,0.7",
        "b,2,,0.0,0.0,0.0,0.0,1",
        "b,0,1,0.0,0.0,0.0,0.0,0",
        "d,1",
        "e" + ",0.5" * 8,
    ]
    (tmp_path / "p.csv").write_text("\n".join(rows))
    with pytest.raises(DataError) as refused:
        read_predictions(tmp_path / "p.csv", ("a", "b", "c"))
    message = refused.value.message
    for part in (
        "2 rows without a cell for each column: line 5, line 6",
        "1 images given twice: b",
        "1 values missing: b NV",
        "1 values that are no number: a BCC x",
        "1 values outside 0..1: b MEL 2",
        "1 images missing: c",
    ):
        assert part in message


def test_all_problems_of_the_truth_at_once(tmp_path):
    rows = [HEADER, "a,1,0,0,0,0,0,0", "a,0,1,0,0,0,0,0", "b,1,1,0,0,0,0,0", "c,0,0,0,0,0,0,0", "d,nan,0,0,0,0,0,1",
            "e,0,0,0,0,0,0,3", "f,0.6,0.4,0,0,0,0,0"]  # fmt: skip
    (tmp_path / "t.csv").write_text("\n".join(rows))
    with pytest.raises(DataError) as refused:
        read_truth(tmp_path / "t.csv")
    message = refused.value.message
    assert "1 images given twice: a" in message
    assert "1 values missing: d MEL nan" in message
    assert "1 values outside 0..1: e VASC 3" in message
    assert "3 images without one class of 1 and others of 0: b, c, f" in message


def test_files_that_are_none(tmp_path):
    with pytest.raises(DataError, match="found none at"):
        read_truth(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes(b"image,\xff\xfe\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_truth(tmp_path / "latin.csv")


def test_files_with_semicolons_are_told_so(tmp_path):
    (tmp_path / "t.csv").write_text(f"{HEADER}\na,1,0,0,0,0,0,0\n".replace(",", ";"))
    for read in (read_truth, lambda path: read_predictions(path, ("a",)), lambda path: read_groups(path, ("a",))):
        with pytest.raises(DataError, match="separated by semicolons") as refused:
            read(tmp_path / "t.csv")
        assert refused.value.remedy == "Save the table with commas."


def test_lesions_of_images(tmp_path):
    (tmp_path / "g.csv").write_text("image,lesion_id,kind\na.jpg,L1,x\nb,L1,x\nz,L9,x\nz,L8,x\n")
    assert read_groups(tmp_path / "g.csv", ("b", "a")) == ["L1", "L1"]
    with pytest.raises(DataError, match="1 images without a lesion: c; 1 images of several lesions: z"):
        read_groups(tmp_path / "g.csv", ("a", "c", "z"))
    (tmp_path / "g.csv").write_text("image_id,lesion\na,L1\n")
    with pytest.raises(DataError, match="no image and no lesion_id"):
        read_groups(tmp_path / "g.csv", ("a",))
