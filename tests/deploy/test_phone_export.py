"""Programs for phones: the network again, or nothing written; what was not run is said so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from numpy.typing import NDArray

from lentigo.core.errors import ConfigError, ExitCode, ExportError, MissingExtraError
from lentigo.core.run_dir import RunDir
from lentigo.data.catalog import Catalog
from lentigo.deploy import coreml_package, executorch_program, phone_export, variants
from lentigo.deploy.export import export_run
from lentigo.deploy.export_source import ExportSource
from lentigo.deploy.exported import ExportedModel
from lentigo.deploy.golden import check_golden, golden_square
from lentigo.deploy.graph_session import GraphSession
from lentigo.deploy.onnx_graph import export_graph
from lentigo.models.checkpoint import load_checkpoint

from .exportable import known_tiny, make_run

RESAMPLES = 100


@pytest.fixture(autouse=True)
def tiny() -> Iterator[None]:
    with known_tiny():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, synthetic_catalog: Catalog) -> RunDir:
    with known_tiny():
        return make_run(tmp_path_factory.mktemp("run") / "tiny", synthetic_catalog)


@pytest.fixture(scope="module")
def graph(run: RunDir) -> bytes:
    """The run's ONNX graph, made once: that takes most of an export's time."""
    with known_tiny():
        return export_graph(*load_checkpoint(run.best))


@pytest.fixture(autouse=True)
def made_once(graph: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "export_graph", lambda network, spec: graph)


class FakeSession:
    """Answers with the ONNX graph of the run, moved by `error` in one logit of each image."""

    def __init__(self, graph: bytes, error: float) -> None:
        self._session = GraphSession.open(graph, "fake")
        self._error = np.float32(error)

    def logits(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = self._session.logits(squares)
        found[:, 3] += self._error
        return found


@pytest.fixture
def fake_executorch(monkeypatch: pytest.MonkeyPatch, graph: bytes) -> list[float]:
    """A runtime whose error is set by the list's one number; the program is a few bytes."""
    error = [0.0]
    monkeypatch.setattr(phone_export, "require_executorch", lambda: None)
    monkeypatch.setattr(phone_export, "lower_program", lambda network, spec: b"program")
    monkeypatch.setattr(phone_export, "ProgramSession", lambda content: FakeSession(graph, error[0]))
    return error


@pytest.fixture
def fake_coreml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phone_export, "require_coreml", lambda: None)
    parts = {PurePosixPath("Manifest.json"): b"{}", PurePosixPath("Data/weights/weight.bin"): b"numbers"}
    monkeypatch.setattr(phone_export, "convert_package", lambda network, spec: parts)


def test_program_is_recorded_with_its_proof(run: RunDir, tmp_path: Path, fake_executorch: list[float]) -> None:
    fake_executorch[0] = 5e-5
    written = export_run(run, targets=("onnx", "executorch"), out=tmp_path / "out", resamples=RESAMPLES)
    program = ExportedModel.load(written.folder).phones["executorch"]
    assert program.files == {"model.pte": hashlib.sha256(b"program").hexdigest()}
    assert (program.file, program.size_bytes, program.pixels) == ("model.pte", 7, "uint8")
    assert (written.folder / "model.pte").read_bytes() == b"program"
    (parity,) = written.parity.phones
    assert parity.max_logit_difference == pytest.approx(5e-5, rel=0.1)
    assert parity.golden_difference == pytest.approx(5e-5, rel=0.1)
    assert parity.n_images == written.parity.variants[0].n_images
    card = (written.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"logits within {parity.max_logit_difference:.2g} of torch's on {parity.n_images} val images" in card
    assert set(written.model.variants) == {"fp32"}


@pytest.mark.parametrize("error", [2e-4, float("nan")])
def test_gate_writes_nothing(run: RunDir, tmp_path: Path, fake_executorch: list[float], error: float) -> None:
    fake_executorch[0] = error
    with pytest.raises(ExportError, match=r"ExecuTorch: expected logits within 0\.0001 of torch's on") as caught:
        export_run(run, targets=("onnx", "executorch"), out=tmp_path / "out", resamples=RESAMPLES)
    assert caught.value.exit_code == ExitCode.GATE
    assert not list(tmp_path.iterdir())


def test_golden_inputs_are_a_gate_of_their_own(
    run: RunDir, tmp_path: Path, fake_executorch: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = variants.golden_logits

    def other(source: ExportSource) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        squares, expected = right(source)
        return squares, expected + np.float32(3e-4)

    monkeypatch.setattr(phone_export, "golden_logits", other)
    with pytest.raises(ExportError, match="20 golden inputs"):
        export_run(run, targets=("onnx", "executorch"), out=tmp_path / "out", resamples=RESAMPLES)
    assert not list(tmp_path.iterdir())


def test_core_ml_is_not_called_verified_where_it_cannot_run(
    run: RunDir, tmp_path: Path, fake_coreml: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phone_export, "can_run", lambda: False)
    written = export_run(run, targets=("onnx", "coreml"), out=tmp_path / "out", resamples=RESAMPLES)
    (found,) = json.loads((written.folder / "parity.json").read_text())["phones"]
    assert (found["max_logit_difference"], found["golden_difference"], found["n_images"]) == (None, None, 0)
    assert found["reason"] == "not verified: Core ML runs only on macOS"
    assert found["reason"] in (written.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    program = written.model.phones["coreml"]
    assert set(program.files) == {"model.mlpackage/Manifest.json", "model.mlpackage/Data/weights/weight.bin"}
    for path, digest in program.files.items():
        assert hashlib.sha256((written.folder / path).read_bytes()).hexdigest() == digest


def test_core_ml_goes_through_the_gate_on_macos(
    run: RunDir, tmp_path: Path, fake_coreml: None, graph: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phone_export, "can_run", lambda: True)
    monkeypatch.setattr(phone_export, "PackageSession", lambda parts: FakeSession(graph, 1e-3))
    with pytest.raises(ExportError, match="Core ML: expected logits within"):
        export_run(run, targets=("onnx", "coreml"), out=tmp_path / "out", resamples=RESAMPLES)
    assert not list(tmp_path.iterdir())


def test_phones_need_the_float_graph(run: RunDir, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected onnx beside executorch"):
        export_run(run, targets=("int8", "executorch"), out=tmp_path / "out")


@pytest.mark.parametrize(
    ("target", "module", "package"),
    [("executorch", executorch_program, "executorch"), ("coreml", coreml_package, "coremltools")],
)
def test_missing_package_is_named(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, module: object, package: str
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=f"needs the package {package}") as caught:
        export_run(run, targets=("onnx", target), out=tmp_path / "out")
    assert f"lentigo[{target}]" in caught.value.remedy


@pytest.mark.skipif(find_spec("executorch") is None, reason="needs the package executorch")
def test_executorch_itself(run: RunDir, tmp_path: Path) -> None:
    written = export_run(run, targets=("onnx", "executorch"), out=tmp_path / "out", resamples=RESAMPLES)
    session = executorch_program.ProgramSession((written.folder / "model.pte").read_bytes())
    preprocess = written.model.preprocess

    def predict(path: Path) -> NDArray[np.float32]:
        return session.logits(golden_square(preprocess, path.read_bytes(), path.name)[None])

    assert check_golden(written.folder / "golden", predict) <= 1e-4


@pytest.mark.skipif(find_spec("coremltools") is None, reason="needs the package coremltools")
def test_core_ml_itself(run: RunDir, tmp_path: Path) -> None:
    """The package as Core ML reads it: one image of float pixels, logits and feature map, single precision."""
    written = export_run(run, targets=("onnx", "coreml"), out=tmp_path / "out", resamples=RESAMPLES)
    import coremltools

    package = written.folder / "model.mlpackage"
    description = coremltools.models.MLModel(str(package), skip_model_load=True).get_spec().description
    shapes = {one.name: list(one.type.multiArrayType.shape) for one in (*description.input, *description.output)}
    assert shapes == {"pixels": [1, 32, 32, 3], "logits": [1, 7], "feature_map": [1, 16, 4, 4]}
    assert {path.relative_to(written.folder).as_posix() for path in package.rglob("*") if path.is_file()} == set(
        written.model.phones["coreml"].files
    )
    assert (written.parity.phones[0].max_logit_difference is None) == (not coreml_package.can_run())
