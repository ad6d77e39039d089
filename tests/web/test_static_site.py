"""The page as plain files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lentigo.core.errors import CheckpointError, ConfigError
from lentigo.deploy import static_site
from lentigo.deploy.exported import ExportedModel
from lentigo.deploy.static_site import PAGE_FILES, RUNTIME_FILES, WEB, build_static, missing_runtime


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's folder with stand-ins for the runtime, which a checkout may lack."""
    web = tmp_path / "web"
    (web / "vendor").mkdir(parents=True)
    for file in PAGE_FILES:
        (web / file).write_bytes((WEB / file).read_bytes())
    for file in RUNTIME_FILES:
        (web / "vendor" / file).write_bytes(file.encode())
    (web / "runs.html").write_text("the service's own")
    monkeypatch.setattr(static_site, "WEB", web)
    return web


def test_site_has_page_runtime_and_one_variant(runtime: Path, tiny_model: Path, tmp_path: Path) -> None:
    site = build_static(tiny_model, tmp_path / "new" / "site")
    found = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    model = {"model/model.json", "model/model.onnx"}
    assert found == {*PAGE_FILES, *(f"vendor/{file}" for file in RUNTIME_FILES), *model}
    spec = ExportedModel.load(site / "model")
    assert list(spec.variants) == ["fp32"]
    spec.read_graph(site / "model", "fp32")
    assert [path.name for path in site.parent.iterdir()] == ["site"], "no temporary folder stays"


def test_model_without_fp32(runtime: Path, tiny_model: Path, tmp_path: Path) -> None:
    spec = ExportedModel.load(tiny_model)
    (tmp_path / "int8").mkdir()
    (tmp_path / "int8" / "model.int8.onnx").write_bytes(spec.read_graph(tiny_model, "int8"))
    spec.model_copy(update={"variants": {"int8": spec.variants["int8"]}}).save(tmp_path / "int8")
    site = build_static(tmp_path / "int8", tmp_path / "site")
    assert (site / "model" / "model.int8.onnx").is_file()


def test_empty_folder_is_filled_and_another_refused(runtime: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    build_static(tiny_model, tmp_path / "site")
    with pytest.raises(ConfigError, match="already exists"):
        build_static(tiny_model, tmp_path / "site")


def test_missing_runtime_is_named(runtime: Path, tiny_model: Path, tmp_path: Path) -> None:
    assert missing_runtime() == []
    for file in RUNTIME_FILES[1:]:
        (runtime / "vendor" / file).unlink()
    with pytest.raises(ConfigError, match=", ".join(RUNTIME_FILES[1:])) as error:
        build_static(tiny_model, tmp_path / "site")
    assert "python tools/vendor_web.py" in error.value.remedy
    assert "install it again" in error.value.remedy
    assert not (tmp_path / "site").exists()


def test_damaged_model_writes_nothing(runtime: Path, tiny_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "model.json").write_bytes((tiny_model / "model.json").read_bytes())
    (copy / "model.onnx").write_bytes(b"another file")
    with pytest.raises(CheckpointError):
        build_static(copy, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_manifest_names_files_that_exist() -> None:
    manifest = json.loads((WEB / "manifest.webmanifest").read_text(encoding="utf-8"))
    assert all((WEB / icon["src"]).is_file() for icon in manifest["icons"])
