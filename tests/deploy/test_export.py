"""A run exported: the graph is the network, the folder is whole or absent, and every gate can fail."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from lentigo.core.errors import CheckpointError, ConfigError, DataError, ExitCode, ExportError
from lentigo.core.predictions import Predictions
from lentigo.core.run_dir import RunDir
from lentigo.data.catalog import Catalog
from lentigo.data.images import load_image
from lentigo.data.preprocess import Preprocess
from lentigo.deploy import half_weights as half_weights_module
from lentigo.deploy import int8 as int8_module
from lentigo.deploy import variants as variants_module
from lentigo.deploy.classifier import Classifier
from lentigo.deploy.export import Export, export_run
from lentigo.deploy.exported import METADATA_KEY, ExportedModel
from lentigo.deploy.golden import check_golden
from lentigo.deploy.graph_session import GraphSession
from lentigo.deploy.int8 import find_int8, layers_over_budget
from lentigo.deploy.onnx_graph import export_graph, linear_head
from lentigo.deploy.output_folder import output_folder
from lentigo.deploy.parity import (
    VariantParity,
    compare_speed,
    judge_variant,
    paired_scores,
    require_fp32,
    rounding_failures,
)
from lentigo.deploy.parity_table import parity_section
from lentigo.deploy.provenance import read_facts, weights_licence
from lentigo.deploy.quantize import Quantizer
from lentigo.evaluation.compare import compare
from lentigo.evaluation.fit_calibration import fit_calibration
from lentigo.evaluation.metrics import Estimate
from lentigo.models.checkpoint import ModelSpec, load_checkpoint, load_tensors
from lentigo.models.network import build_network
from lentigo.training.inference import _views
from lentigo.training.rows import judged_rows

from .exportable import known_tiny, make_run

FILES = {"model.onnx", "model.int8.onnx", "model.json", "parity.json", "MODEL_CARD.md", "golden"}


@pytest.fixture(autouse=True)
def tiny() -> Iterator[None]:
    with known_tiny():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, synthetic_catalog: Catalog) -> RunDir:
    """A finished run, judged with four views, whose test images are gone. Shared: copy it before you change it."""
    unseen = replace(
        synthetic_catalog.rows[0], image_id="unseen", lesion_id="unseen", split="test", path=Path("gone.jpg")
    )
    with known_tiny():
        return make_run(
            tmp_path_factory.mktemp("run") / "tiny",
            replace(synthetic_catalog, rows=(*synthetic_catalog.rows, unseen)),
            views=4,
        )


@pytest.fixture(scope="module")
def exported(run: RunDir) -> Export:
    with known_tiny():
        return export_run(run, out=run.path.parent / "export", resamples=100)


@pytest.fixture
def own(run: RunDir, tmp_path: Path) -> RunDir:
    """An own copy of the run."""
    return RunDir(Path(shutil.copytree(run.path, tmp_path / "own")))


def val_of(run: RunDir) -> Catalog:
    from lentigo.training.run import read_catalog

    return judged_rows(read_catalog(run), "val")


def torch_logits(run: RunDir, views: int) -> np.ndarray:
    """By the network and `Preprocess` alone."""
    network, spec = load_checkpoint(run.best)
    images = torch.from_numpy(np.stack([spec.preprocess(load_image(row.path)) for row in val_of(run)]))
    with torch.inference_mode():
        return torch.stack([network(view) for view in _views(images, views)]).mean(dim=0).numpy()


def test_folder_has_these_files(exported: Export) -> None:
    assert {path.name for path in exported.folder.iterdir()} == FILES
    assert ExportedModel.load(exported.folder) == exported.model
    assert json.loads((exported.folder / "parity.json").read_text()) == exported.parity.as_dict()
    assert not [path for path in exported.folder.parent.iterdir() if path.name.startswith(".export")]


@pytest.mark.parametrize("views", [1, 4])
def test_classifier_gives_the_networks_logits(run: RunDir, exported: Export, views: int) -> None:
    """The prior correction, the normalisation, the resize contract and the views are all in it."""
    classifier = Classifier.load(exported.folder, views=views)
    found = np.array([one.logits for one in classifier.predict([row.path for row in val_of(run)])])
    np.testing.assert_allclose(found, torch_logits(run, views), atol=1e-4)
    assert classifier.calibrated


def test_calibrations_are_fitted_on_the_variants_own_logits(run: RunDir, exported: Export) -> None:
    found = {name: set(variant.calibrations) for name, variant in exported.model.variants.items()}
    assert found == {"fp32": {"1", "4"}, "int8": {"1"}}
    rows, classifier = val_of(run), Classifier.load(exported.folder, variant="int8")
    logits = np.array([one.logits for one in classifier.predict([row.path for row in rows])], dtype=np.float32)
    table = Predictions(tuple(row.image_id for row in rows), tuple(row.lesion_id for row in rows), rows.labels, logits)
    expected = fit_calibration(table, resamples=100)
    assert classifier.calibration is not None
    assert classifier.calibration.temperature == pytest.approx(expected.temperature, rel=1e-6)
    assert classifier.calibration.operating_points == expected.operating_points


def test_graph_is_one_file_that_says_where_it_comes_from(exported: Export, repository: Path) -> None:
    for name, variant in exported.model.variants.items():
        content = exported.model.read_graph(exported.folder, name)
        assert len(content) == variant.size_bytes
        assert not any(word in content for word in (b"site-packages", str(repository).encode(), b"stack_trace"))
        model = onnx.load_model_from_string(content)
        assert not any(tensor.external_data for tensor in model.graph.initializer)
        assert {one.domain: one.version for one in model.opset_import}[""] == exported.model.opset == 18
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
        (entry,) = model.metadata_props
        assert entry.key == METADATA_KEY
        said = ExportedModel.model_validate_json(entry.value)
        without = {
            key: one.model_copy(update={"sha256": "", "size_bytes": 0}) for key, one in exported.model.variants.items()
        }
        assert said == exported.model.model_copy(update={"variants": without})


def test_any_number_of_images_gives_the_same_logits(exported: Export) -> None:
    squares = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    for name in exported.model.variants:
        session = GraphSession.open(exported.model.read_graph(exported.folder, name), name)
        one_by_one = np.concatenate([session.logits(squares[i : i + 1]) for i in range(5)])
        np.testing.assert_allclose(session.logits(squares), one_by_one, atol=1e-5)


def test_activation_map_needs_no_more_than_the_description(exported: Export) -> None:
    squares = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    session = GraphSession.open(exported.model.read_graph(exported.folder, "fp32"), "fp32")
    features = session.feature_maps(squares)
    assert features.shape == (3, 16, 4, 4)
    logits = features.mean(axis=(2, 3)) @ np.array(exported.model.head_weight).T + exported.model.head_bias
    np.testing.assert_allclose(logits, session.logits(squares), atol=1e-4)


def test_head_with_a_hidden_layer_is_left_out() -> None:
    spec = ModelSpec(architecture="mobilenet_v3_large", preprocess=Preprocess(resize_steps_px=(32,)))
    assert linear_head(build_network("mobilenet_v3_large", 7), spec) == ((), ())


def test_golden_inputs_agree_with_the_runtime(exported: Export) -> None:
    classifier = Classifier.load(exported.folder)
    difference = check_golden(
        exported.folder / "golden", lambda path: np.array(classifier.predict(path)[0].logits, dtype=np.float32)
    )
    assert difference <= 1e-5
    assert exported.parity.golden_difference <= 1e-4


def test_parity_states_what_was_measured(run: RunDir, exported: Export) -> None:
    fp32, four_views, int8 = exported.parity.variants
    labels, answers = val_of(run).labels, torch_logits(run, 1).argmax(axis=1)
    assert fp32.max_logit_difference is not None
    assert fp32.max_logit_difference <= 1e-4
    assert fp32.balanced_accuracy.value == pytest.approx(
        np.mean([(answers[labels == label] == label).mean() for label in set(labels.tolist())])
    )
    assert fp32.n_images == len(labels)
    assert (four_views.views, four_views.max_logit_difference, four_views.latency) == (4, None, None)
    assert int8.latency is not None
    assert int8.latency.n > 20
    assert exported.parity.int8 is not None
    assert all(count >= 2 for count in exported.parity.int8.calibration_images.values())
    card = (exported.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card.endswith(f"Terms: {exported.model.licence}\n")
    assert parity_section(exported.parity) in card
    assert card.startswith("# Model card: tiny")


def test_provenance_and_licence(run: RunDir, exported: Export) -> None:
    origin = exported.model.provenance
    assert (origin["run"], origin["seed"], origin["recipe"]) == ("tiny", "7", "tiny")
    assert {"catalog_sha256", "lentigo", "commit", "exported_utc", "torch", "onnx", "onnxruntime"} <= set(origin)
    assert exported.model.synthetic
    facts = read_facts(run)
    assert "drawings" in exported.model.licence
    real = replace(facts, catalog=replace(facts.catalog, name="ham10000-3k", synthetic=False))
    assert weights_licence(real).startswith("weights: CC BY-NC 4.0 (trained on HAM10000)")
    other = replace(facts, catalog=replace(facts.catalog, name="clinic", synthetic=False), start_licence="GPL-3.0")
    assert weights_licence(other).startswith("weights: not known to the program")
    assert weights_licence(other).endswith("GPL-3.0")


def names_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_fp32_gate_writes_nothing(own: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def slightly_wrong(*arguments: object) -> bytes:
        return _with_bias(export_graph(*arguments), 2e-4)  # type: ignore[arg-type]

    monkeypatch.setattr(variants_module, "export_graph", slightly_wrong)
    before = names_below(own.path.parent)
    with pytest.raises(ExportError, match=r"within 0.0001 of torch's on \d+ val images.*0.0002") as error:
        export_run(own, targets=("onnx",), resamples=100)
    assert error.value.exit_code == ExitCode.GATE
    assert names_below(own.path.parent) == before


def test_int8_gate_writes_nothing(own: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_module, "MORE_IN_FLOAT", (0, 1))
    monkeypatch.setattr(int8_module, "ERROR_BUDGET", 1e9)

    def spoilt(quantizer: Quantizer, graph: bytes, squares: object) -> tuple[bytes, tuple[float, ...]]:
        return _with_bias(graph, 100.0), (0.0,) * 7

    monkeypatch.setattr(int8_module, "correct_shift", spoilt)
    before = names_below(own.path.parent)
    with pytest.raises(ExportError, match=r"2 attempts.*balanced accuracy -\d.*n 10.*Nothing was written") as error:
        export_run(own, resamples=100)
    assert error.value.exit_code == ExitCode.GATE
    assert names_below(own.path.parent) == before


def test_fp16_gate_writes_nothing(own: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants_module, "halve_weights", lambda graph: _with_bias(graph, 100.0))
    before = names_below(own.path.parent)
    with pytest.raises(ExportError, match=r"fp16: balanced accuracy -\d.*n 10.*Nothing was written"):
        export_run(own, targets=("fp16",), resamples=100)
    assert names_below(own.path.parent) == before


def _with_bias(graph: bytes, shift: float) -> bytes:
    """The same graph with `shift` added to the logit of akiec."""
    model = onnx.load_model_from_string(graph)
    output = next(node for node in model.graph.node if "logits" in node.output)
    output.output[:] = ["before"]
    added = np.zeros(7, np.float32)
    added[0] = shift
    model.graph.initializer.append(numpy_helper.from_array(added, "sabotage"))
    model.graph.node.append(onnx.helper.make_node("Add", ["before", "sabotage"], ["logits"]))
    return bytes(model.SerializeToString())


def judged(balanced: float | None, melanoma: float | None) -> VariantParity:
    one = Estimate(0.5, None, None, 9)
    return VariantParity(
        variant="int8",
        views=1,
        size_bytes=1,
        n_images=9,
        n_lesions=9,
        max_logit_difference=0.1,
        top1_agreement=one,
        balanced_accuracy=one,
        melanoma_sensitivity=one,
        balanced_accuracy_difference=Estimate(balanced, None, None, 9),
        melanoma_sensitivity_difference=Estimate(melanoma, None, None, 4),
    )


@pytest.mark.parametrize(
    ("balanced", "melanoma", "failing"),
    [
        (0.0, 0.0, ()),
        (-0.01, -0.02, ()),
        (-0.0101, 0.0, ("balanced accuracy",)),
        (0.05, -0.0201, ("melanoma sensitivity",)),
        (-0.02, -0.03, ("balanced accuracy", "melanoma sensitivity")),
        (-0.02, None, ("balanced accuracy",)),
    ],
)
def test_int8_gates(balanced: float, melanoma: float | None, failing: tuple[str, ...]) -> None:
    found = rounding_failures(judged(balanced, melanoma))
    assert len(found) == len(failing)
    assert all(text.startswith(name) for text, name in zip(found, failing, strict=True))
    assert all(("n 9" in text) == text.startswith("balanced") for text in found)


@pytest.mark.parametrize("difference", [1.01e-4, float("nan"), float("inf")])
def test_fp32_gate(difference: float) -> None:
    require_fp32(1e-4, 10, "val images")
    with pytest.raises(ExportError):
        require_fp32(difference, 10, "val images")


def test_budget_of_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_module, "ERROR_BUDGET", 0.1)
    assert layers_over_budget([0.06, 0.08]) == 0
    assert layers_over_budget([0.3, 0.08, 0.0601]) == 2, "0.08 and 0.0601 together are a little more than 0.1"
    assert layers_over_budget([0.3, 0.2, 0.08, 0.06]) == 2
    assert layers_over_budget([0.3, 0.2]) == 1, "one layer stays int8"
    assert layers_over_budget([]) == 0


def test_search_keeps_the_worst_layers_in_float(run: RunDir, exported: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that is content from three attempts on: two layers in float, those whose errors are largest."""
    monkeypatch.setattr(int8_module, "ERROR_BUDGET", 1e9)
    monkeypatch.setattr(int8_module, "MORE_IN_FLOAT", (0, 1, 2, 3))
    rows = val_of(run)
    squares = np.random.default_rng(2).integers(0, 256, (len(rows), 32, 32, 3), dtype=np.uint8)
    seen: list[bytes] = []

    def judge(graph: bytes) -> tuple[Predictions, VariantParity]:
        seen.append(graph)
        return tables, judged(0.0 if len(seen) == 3 else -0.5, 0.0)

    tables = Predictions((), (), np.empty(0, np.int64), np.empty((0, 7), np.float32))
    found = find_int8(exported.model.read_graph(exported.folder, "fp32"), rows, squares, judge)
    errors = found.record.layer_errors
    assert found.graph == seen[2]
    assert list(errors.values()) == sorted(errors.values(), reverse=True)
    assert [one.kept_float for one in found.record.attempts] == [(), tuple(errors)[:1], tuple(errors)[:2]]
    assert [bool(one.failures) for one in found.record.attempts] == [True, True, False]


def test_paired_differences_are_those_of_the_comparison() -> None:
    """The same resamples of lesions as `lentigo compare` draws, with answers of two unlike models."""
    generator = np.random.default_rng(3)
    label = np.arange(140) % 7
    names = tuple(f"{i:03d}" for i in range(140))
    lesions = tuple(f"lesion-{i // 2}" for i in range(140))
    tables = []
    for strength in (2.0, 1.0):
        logits = generator.normal(size=(140, 7)).astype(np.float32)
        logits[np.arange(140), label] += strength
        tables.append(Predictions(names, lesions, label, logits))
    expected = compare({"a": tables[:1], "b": tables[1:]}, split="val", resamples=300).comparisons[0]
    found = paired_scores(tables[1], tables[0], resamples=300).estimate(
        "balanced_accuracy_difference", np.ones(140, dtype=np.bool_)
    )
    same = expected.metrics["balanced_accuracy"]
    assert (found.value, found.ci_low, found.ci_high) == pytest.approx((same.value, same.ci_low, same.ci_high))
    one = judge_variant(
        "int8", tables[1], views=1, size_bytes=1, torch_logits=tables[0].logits, fp32=tables[0], resamples=300
    )
    melanoma = label == 4
    right = [(table.logits.argmax(axis=1) == 4)[melanoma].mean() for table in tables]
    assert one.melanoma_sensitivity.value == pytest.approx(right[1])
    assert one.melanoma_sensitivity_difference is not None
    assert one.melanoma_sensitivity_difference.value == pytest.approx(right[1] - right[0])
    assert one.melanoma_sensitivity_difference.n == 20


def test_int8_is_faster_only_where_it_was_measured_to_be() -> None:
    noise = np.random.default_rng(4).normal(10.0, 1.0, size=(2, 41))
    assert compare_speed(noise[0], noise[1]).finding == "no difference measured"
    assert compare_speed(2.0 * noise[0], noise[1]).finding == "faster"
    assert compare_speed(noise[0], 2.0 * noise[1]).finding == "slower"
    steps = compare_speed(np.arange(1.0, 42.0), np.ones(41))
    # Binomial(41, 1/2): P(X <= 13) = 0.0138, P(X <= 14) = 0.0298, so the 14th and the 28th value.
    assert (steps.ratio, steps.ci_low, steps.ci_high) == (21.0, 14.0, 28.0)


def test_folder_that_is_taken(own: RunDir) -> None:
    first = export_run(own, targets=("onnx",), resamples=100)
    with pytest.raises(ConfigError, match="holds an export already"):
        export_run(own, targets=("onnx",), resamples=100)
    second = export_run(own, targets=("onnx",), resamples=100, force=True, licence="ours alone", checkpoint="last")
    assert first.folder == second.folder == own.export
    assert {path.name for path in own.export.iterdir()} == FILES - {"model.int8.onnx"}
    assert ExportedModel.load(own.export).licence == "ours alone"
    assert "weights of the last epoch" in (own.export / "MODEL_CARD.md").read_text()
    with pytest.raises(ConfigError, match="is no export"):
        export_run(own, targets=("onnx",), out=own.path, force=True)


def test_small_package_to_train_from(own: RunDir, exported: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    """fp16 in place of fp32, with the checkpoint and its terms: half the size, the same answers, the same weights."""
    monkeypatch.setattr(half_weights_module, "_FEWEST_VALUES", 16)
    terms = "weights: CC BY-NC 4.0 (trained on HAM10000)"
    written = export_run(own, targets=("fp16",), resamples=100, name="small", with_start=True, licence=terms)
    assert {path.name for path in written.folder.iterdir()} == {
        "model.fp16.onnx", "model.json", "parity.json", "MODEL_CARD.md", "golden", "start.safetensors",
        "LICENSE-WEIGHTS.txt",
    }  # fmt: skip
    assert "creativecommons.org/licenses/by-nc/4.0" in (written.folder / "LICENSE-WEIGHTS.txt").read_text()
    assert (written.model.name, set(written.model.variants)) == ("small", {"fp16"})
    assert [(one.variant, one.views) for one in written.parity.variants] == [
        ("fp32", 1), ("fp32", 4), ("fp16", 1), ("fp16", 4),
    ]  # fmt: skip
    classifier = Classifier.load(written.folder)
    assert (classifier.variant, classifier.calibrated) == ("fp16", True)
    kinds = {tensor.data_type for tensor in onnx.load(written.folder / "model.fp16.onnx").graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    pixels = np.stack([classifier.prepare(row.path).pixels for row in val_of(own)])
    found, expected = classifier.logits(pixels), Classifier.load(exported.folder).logits(pixels)
    assert 0 < np.abs(found - expected).max() < 0.05
    golden = written.folder / "golden"
    assert check_golden(golden, lambda path: classifier.predict(path)[0].logits, variant="fp16") <= 1e-4
    halves, _ = load_tensors(written.folder / "start.safetensors")
    for name, tensor in load_tensors(own.best)[0].items():
        assert torch.equal(halves[name], tensor.half() if tensor.is_floating_point() else tensor), name


def test_weights_beyond_half_precision() -> None:
    weights = numpy_helper.from_array(np.full((300,), 7e4, np.float32), "large")
    output = onnx.helper.make_tensor_value_info("large", onnx.TensorProto.FLOAT, [300])
    graph = onnx.helper.make_graph([], "one", [], [output], [weights])
    with pytest.raises(ExportError, match="fp16: large has weights up to 7e"):
        half_weights_module.halve_weights(onnx.helper.make_model(graph).SerializeToString())


def test_failure_while_writing_leaves_the_old_folder(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "model.json").write_text("old")

    def stopped_half_way() -> None:
        with output_folder(tmp_path / "export", force=True) as new:
            (new / "model.json").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped_half_way()
    assert names_below(tmp_path) == {"export", "export/model.json"}
    assert (tmp_path / "export" / "model.json").read_text() == "old"


def test_what_cannot_be_exported(own: RunDir, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tflite"):
        export_run(own, targets=("onnx", "tflite"))
    text = own.catalog.read_text(encoding="utf-8")
    first = val_of(own).rows[0]
    own.catalog.write_text(text.replace(str(first.path), str(tmp_path / "gone.jpg")), encoding="utf-8")
    with pytest.raises(DataError, match=r"gone\.jpg"):
        export_run(own)
    own.write_status("running")
    with own.lock(), pytest.raises(CheckpointError, match="running"):
        export_run(own)
    for state in ("interrupted", "failed"):
        own.write_status(state)
        with pytest.raises(CheckpointError, match=f"finished run .* found a run that is {state}") as raised:
            export_run(own)
        assert f"lentigo train --resume {own.path}" in raised.value.remedy
    own.write_status("done")
    own.best.unlink()
    with pytest.raises(CheckpointError, match="without them"):
        export_run(own)
    assert not own.export.exists()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["mobilenet_v2", "mobilenet_v3_large"])
def test_mobilenets_export_exactly(architecture: str, synthetic_catalog: Catalog) -> None:
    spec = ModelSpec(architecture=architecture, preprocess=Preprocess(resize_steps_px=(64,)))
    torch.manual_seed(0)
    network = build_network(architecture, 7).eval()
    session = GraphSession.open(export_graph(network, spec), architecture)
    images = [load_image(row.path) for row in synthetic_catalog.rows[:8]]
    squares = np.stack([np.asarray(spec.preprocess.remaining_steps(spec.preprocess.first_step(one))) for one in images])
    with torch.inference_mode():
        expected = network(torch.from_numpy(np.stack([spec.preprocess(one) for one in images]))).numpy()
    np.testing.assert_allclose(session.logits(squares), expected, atol=1e-4)
    assert bool(linear_head(network, spec)[0]) == (architecture == "mobilenet_v2")
