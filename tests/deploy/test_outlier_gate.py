"""Images of another kind: the graph's distance is the formula's, the limit is val's, and every answer tells of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lentigo.core.errors import CheckpointError
from lentigo.core.run_dir import RunDir
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.catalog import Catalog
from lentigo.data.preprocess import Preprocess
from lentigo.data.synthetic import draw_lesion
from lentigo.deploy.classifier import Classifier
from lentigo.deploy.engine import Failure, answer_batch
from lentigo.deploy.export_source import ExportSource, open_source
from lentigo.deploy.exported import ExportedModel
from lentigo.deploy.graph_session import GraphSession
from lentigo.deploy.inputs import Item
from lentigo.deploy.onnx_graph import export_graph
from lentigo.deploy.outlier_gate import add_outlier_gates
from lentigo.deploy.outlier_graph import with_outlier_distance
from lentigo.evaluation.outliers import FeatureStatistics, fit_statistics

from .conftest import drawn_squares, tiny_graph
from .exportable import known_tiny, make_run

CONTRACT = Preprocess(resize_steps_px=(48, 32))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, synthetic_catalog: Catalog) -> Iterator[ExportSource]:
    """A finished run, opened for its export."""
    with known_tiny():
        run = make_run(tmp_path_factory.mktemp("run") / "tiny", synthetic_catalog)
        yield open_source(RunDir(run.path), "best", lambda what, done, total: None)


@pytest.fixture(scope="module")
def graph(source: ExportSource) -> bytes:
    return export_graph(source.network, source.spec)


@pytest.fixture(scope="module")
def squares() -> np.ndarray:
    """Drawn lesions, noise, and one that is black."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    return np.concatenate([drawn_squares(CONTRACT, 300, 6), noise, np.zeros((1, 32, 32, 3), np.uint8)])


@pytest.mark.parametrize("components", [1, 4, 8])
def test_distance_is_that_of_the_formula(
    tiny_weights: dict[str, np.ndarray], squares: np.ndarray, components: int
) -> None:
    graph = tiny_graph(CONTRACT, tiny_weights)
    plain = GraphSession.open(graph, "tiny")
    features = plain.feature_maps(drawn_squares(CONTRACT, 0, 42)).mean(axis=(2, 3))
    statistics = fit_statistics(features, np.arange(42) % 7, components=components)
    session = GraphSession.open(with_outlier_distance(graph, statistics), "tiny")
    expected = statistics.distances(plain.feature_maps(squares).mean(axis=(2, 3)))
    assert session.has_distances
    assert not plain.has_distances
    np.testing.assert_allclose(session.outlier_distances(squares), expected, rtol=1e-3)
    np.testing.assert_array_equal(session.logits(squares), plain.logits(squares))
    np.testing.assert_array_equal(session.feature_maps(squares), plain.feature_maps(squares))


def test_features_of_zeros_have_a_distance(tiny_weights: dict[str, np.ndarray]) -> None:
    weights = tiny_weights | {"convolution": np.zeros_like(tiny_weights["convolution"])}
    means = np.eye(3, 12, dtype=np.float32)
    statistics = FeatureStatistics(means, np.eye(12, 2, k=-5, dtype=np.float32), np.ones(2, np.float32), 0.5)
    session = GraphSession.open(with_outlier_distance(tiny_graph(CONTRACT, weights), statistics), "tiny")
    found = session.outlier_distances(np.zeros((2, 32, 32, 3), np.uint8))
    np.testing.assert_allclose(found, statistics.distances(np.zeros((2, 12), np.float32)), rtol=1e-6)


def test_limits_are_fixed_on_val_for_each_graph(source: ExportSource, graph: bytes) -> None:
    graphs, limits = add_outlier_gates(source, {"fp32": graph, "int8": graph}, lambda what, done, total: None)
    assert limits["fp32"] == limits["int8"], "the same graph has the same limit"
    limit, session = limits["fp32"], GraphSession.open(graphs["fp32"], "fp32")
    val = np.stack([source.spec.preprocess.finished_square(source.val[row]) for row in range(len(source.val))])
    distances = session.outlier_distances(val)
    assert limit.n == len(val)
    assert (distances <= limit.threshold).mean() >= limit.pass_rate == 0.95
    assert limit.beyond == tuple(np.sort(distances[distances > limit.threshold]).tolist())


def test_without_enough_training_images_there_is_no_gate_and_it_is_said(source: ExportSource, graph: bytes) -> None:
    rows = source.catalog.rows
    few = [row for row in rows if row.split != "train"] + [row for row in rows if row.split == "train"][:10]
    said: list[str] = []
    graphs, limits = add_outlier_gates(
        replace(source, catalog=replace(source.catalog, rows=tuple(few))),
        {"fp32": graph},
        lambda what, done, total: said.append(what),
    )
    assert (graphs, limits) == ({"fp32": graph}, {})
    assert said[-1].startswith("no gate for images of another kind: expected 16 training images more than classes")


@pytest.fixture(scope="module")
def classifier(tiny_model: Path) -> Classifier:
    return Classifier.load(tiny_model, threads=1)


def test_answers_tell_what_is_of_another_kind(classifier: Classifier, squares: np.ndarray) -> None:
    limit = classifier.outlier_limit
    assert limit is not None
    judged = classifier.judge(squares)
    assert judged.distances is not None
    found = classifier.decide([""] * len(squares), judged.logits, [()] * len(squares), judged.distances)
    assert [one.outlier for one in found] == (judged.distances > limit.threshold).tolist()
    assert {one.outlier for one in found[:6]} >= {False}
    assert all(one.outlier for one in found[6:12]), "noise is no lesion"
    for one in found:
        reasons = [reason for reason in one.abstain_reasons if reason.startswith("image of another kind: ")]
        assert len(reasons) == bool(one.outlier)
        assert not one.outlier or one.abstain
    assert f"{limit.n} of {limit.n} val images" in " ".join(found[6].abstain_reasons)


def test_noise_and_patterns_are_flagged_more_often_than_new_lesions(classifier: Classifier) -> None:
    """The tiny model's limit lets three in four lesions pass; those here are new ones."""
    generator = np.random.default_rng(1)
    columns = np.arange(64)[:, None, None]
    pictures = {
        "lesions": [draw_lesion(CLASS_CODES[i % 7], lesion_seed=5000 + i, size_px=64) for i in range(42)],
        "noise": list(generator.integers(0, 256, (42, 64, 64, 3), dtype=np.uint8)),
        "stripes": [
            np.broadcast_to(255 * (columns // (2 + i % 9) % 2), (64, 64, 3)).astype(np.uint8) for i in range(42)
        ],
    }
    share = {
        kind: np.mean([bool(one.outlier) for one in classifier.predict(arrays)]) for kind, arrays in pictures.items()
    }
    assert share["lesions"] < 0.5, share
    assert min(share["noise"], share["stripes"]) > share["lesions"] + 0.4, share


def test_words_count_the_val_images_that_are_nearer(classifier: Classifier) -> None:
    limit = classifier.outlier_limit
    assert limit is not None
    assert len(limit.beyond) > 2
    for place, distance in enumerate(limit.beyond):
        assert f"than {limit.n - len(limit.beyond) + place} of {limit.n}" in limit.describe(distance)


def test_views_do_not_move_the_distance(tiny_model: Path, classifier: Classifier, squares: np.ndarray) -> None:
    four = Classifier.load(tiny_model, views=4, threads=1)
    judged = four.judge(squares)
    np.testing.assert_array_equal(judged.logits, four.logits(squares))
    np.testing.assert_array_equal(judged.distances, classifier.judge(squares).distances)
    assert four.judge(squares[:0]).logits.shape == (0, 7)


def test_a_model_without_a_limit_does_not_know(tiny_gray_model: Path, squares: np.ndarray) -> None:
    older = Classifier.load(tiny_gray_model)
    assert older.judge(squares).distances is None
    found = older.predict(list(squares))
    assert {(one.outlier, one.as_dict()["outlier"]) for one in found} == {(None, None)}
    assert {one.abstain for one in found if not one.quality_flags} <= {None}


def test_an_uncalibrated_model_abstains_from_another_kind(tiny_model: Path, squares: np.ndarray) -> None:
    bare = Classifier.load(tiny_model, variant="int8", views=2)
    assert not bare.calibrated
    judged = bare.judge(squares)
    found = bare.decide([""] * len(squares), judged.logits, [()] * len(squares), judged.distances)
    assert [one.abstain for one in found] == [True if one.outlier else None for one in found]


def test_engines_and_predict_agree(classifier: Classifier, squares: np.ndarray, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(len(squares))]
    for path, square in zip(paths, squares, strict=True):
        Image.fromarray(square).save(path)
    outcomes = answer_batch(classifier, [Item(path.name, path.stem, path) for path in paths])
    answers = [outcome.answer for outcome in outcomes]
    assert not any(isinstance(answer, Failure) for answer in answers)
    found = [answer.outlier for answer in answers if not isinstance(answer, Failure)]
    assert found == [one.outlier for one in classifier.predict(paths)]
    assert set(found) == {True, False}


def test_a_limit_without_its_output_is_refused(tiny_model: Path, tiny_gray_model: Path, tmp_path: Path) -> None:
    limited, spec = ExportedModel.load(tiny_model), ExportedModel.load(tiny_gray_model)
    variants = {
        name: variant.model_copy(update={"outlier_limit": limited.variants[name].outlier_limit})
        for name, variant in spec.variants.items()
    }
    for file in tiny_gray_model.glob("*.onnx"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    spec.model_copy(update={"variants": variants}).save(tmp_path)
    with pytest.raises(CheckpointError, match="expected the output outlier_distance"):
        Classifier.load(tmp_path)
