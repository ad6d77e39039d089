"""`lentigo export` on a run of a second."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from lentigo.core.run_dir import RunDir
from lentigo.data.catalog import Catalog
from lentigo.deploy import variants as variants_module
from lentigo.deploy.onnx_graph import export_graph

from .conftest import must, run_lentigo

MODULE = Path(__file__).parents[1] / "deploy" / "exportable.py"
FAST = ("--resamples", 100)


@pytest.fixture(scope="module")
def exportable() -> ModuleType:
    """The module tests/deploy/exportable.py."""
    specification = importlib.util.spec_from_file_location("lentigo_tests_exportable", MODULE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def run(exportable: ModuleType, synthetic_catalog: Catalog, tmp_path: Path) -> Iterator[RunDir]:
    with exportable.known_tiny():
        yield exportable.make_run(tmp_path / "run", synthetic_catalog)


def test_table_then_json(run: RunDir) -> None:
    said = must("export", run.path, *FAST)
    assert said.out.startswith("run, judged on val")
    for words in (
        "fp32",
        "int8",
        "melanoma sensitivity",
        "ONNX opset 18",
        "Golden inputs",
        "Terms: weights",
    ):
        assert words in said.out
    assert "Research use only" in said.out
    assert "say nothing about real lesions" in said.err
    assert f"lentigo predict IMAGE --model {run.export}" in said.err.splitlines()[-1]
    again = run_lentigo("export", run.path, *FAST)
    assert again.code == 2
    assert "--force" in again.err
    found = must("export", run.path, *FAST, "--force", "--to", "onnx", "--licence", "mine", "--json").json
    assert [one["variant"] for one in found["variants"]] == ["fp32"]
    assert found["licence"] == "mine"
    assert found["int8"] is None
    assert Path(found["folder"]) == run.export
    assert not (run.export / "model.int8.onnx").exists()


def test_failed_gate_exits_with_4_and_writes_nothing(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_network(network: object, spec: object) -> bytes:
        for parameter in network.parameters():  # type: ignore[attr-defined]
            parameter.data.mul_(1.01)
        return export_graph(network, spec)  # type: ignore[arg-type]

    monkeypatch.setattr(variants_module, "export_graph", other_network)
    said = run_lentigo("export", run.path, *FAST, "--out", run.path.parent / "out", "--json")
    assert said.code == 4
    assert said.json["exit_code"] == 4
    assert "Nothing was written" in said.json["error"]
    assert not (run.path.parent / "out").exists()
    assert not run.export.exists()


def test_wrong_targets_exit_with_2(run: RunDir) -> None:
    for targets in ("tflite", "", "onnx,coreml"):
        assert run_lentigo("export", run.path, "--to", targets).code == 2
    assert run_lentigo("export", run.path, "--checkpoint", "third").code == 2
    assert run_lentigo("export", run.path.parent / "none").code == 3
