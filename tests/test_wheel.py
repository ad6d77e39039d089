"""What is handed out: archive and wheel are whole and the same, and the wheel alone predicts, scores and serves."""

from __future__ import annotations

import filecmp
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from lentigo import __version__
from lentigo.core.predictions import Predictions
from lentigo.core.shipped import ASSETS, DEFAULT_MODEL, START_FILE
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.preprocess import Preprocess
from lentigo.data.synthetic import draw_lesion
from lentigo.deploy.classifier import Classifier
from lentigo.deploy.exported import CARD_FILE, GOLDEN_FOLDER, LICENCE_FILE, MODEL_FILE, PARITY_FILE, VariantFiles
from lentigo.deploy.golden import GOLDEN_FILE

from .deploy.conftest import TINY_SIZE_PX, write_tiny_model
from .test_packaging import NOT_IN_THE_ARCHIVE, archived

REPOSITORY = Path(__file__).resolve().parents[1]
VENDORED_LICENCE = "src/lentigo/deploy/web/vendor/LICENCE.txt"
MODEL = "src/lentigo/deploy/assets/another"
MODEL_FILES = (
    MODEL_FILE,
    PARITY_FILE,
    CARD_FILE,
    LICENCE_FILE,
    START_FILE,
    *VariantFiles.values(),
    f"{GOLDEN_FOLDER}/{GOLDEN_FILE}",
    f"{GOLDEN_FOLDER}/drawn.png",
)
STRAY_FILES = ("split.csv", "photos/image.jpg", "runs/my-run/config.toml")
LARGEST_ENVIRONMENT_BYTES = 300_000_000
NOT_IN_THE_RUNTIME = (
    "torch",
    "torchvision",
    "pandas",
    "sklearn",
    "scipy",
    "matplotlib",
    "pyarrow",
    "safetensors",
    "onnx",
)
REACHABLE = "tomli-w"
"""The smallest dependency: where it cannot be installed there is no registry."""

pytestmark = pytest.mark.slow


def run(*words: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A program, unaware of the checkout."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = [str(word) for word in words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def must(*words: object, folder: Path | None = None) -> str:
    """`run` where nothing else than success will do; what it printed."""
    done = run(*words, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is committed, with one more model in the package and with a user's files beside it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in archived() | NOT_IN_THE_ARCHIVE:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copy(source, folder / name)
    for name in (*(f"{MODEL}/{file}" for file in MODEL_FILES), *STRAY_FILES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def built(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    must(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, checkout)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    """The wheel."""
    return built / f"lentigo-{__version__}-py3-none-any.whl"


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin of an environment with the wheel, its extra `serve` and their dependencies alone."""
    folder = tmp_path_factory.mktemp("fresh") / "environment"
    venv.create(folder, symlinks=True)
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet")
    found = run(*pip, "--retries", 0, REACHABLE)
    if found.returncode:
        pytest.skip(f"pip cannot install {REACHABLE}: {found.stderr.strip().splitlines()[-1]}")
    must(*pip, f"{wheel}[serve]")
    return folder / "bin"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny exported run."""
    folder = tmp_path_factory.mktemp("run")
    write_tiny_model(folder / "export", Preprocess(resize_steps_px=(48, TINY_SIZE_PX)))
    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """image.png, drawn."""
    Image.fromarray(draw_lesion("mel", lesion_seed=1, size_px=96)).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def test_wheel_has_the_whole_package(checkout: Path, wheel: Path) -> None:
    """Every file, byte for byte: code, recipes, page, models, and the browser's runtime where it was fetched."""
    source = checkout / "src"
    expected = {path.relative_to(source).as_posix(): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    with zipfile.ZipFile(wheel) as archive:
        found = {name: archive.read(name) for name in archive.namelist() if name.startswith("lentigo/")}
    assert sorted(found) == sorted(expected)
    assert [name for name, content in expected.items() if found[name] != content] == []
    assert {"lentigo/py.typed", "lentigo/deploy/web/index.html", "lentigo/training/recipes/demo.toml"} <= found.keys()


def test_wheel_carries_the_licences(checkout: Path, wheel: Path) -> None:
    vendored = {VENDORED_LICENCE} if (checkout / VENDORED_LICENCE).is_file() else set()
    weights = {
        path.relative_to(checkout).as_posix() for path in checkout.glob(f"src/lentigo/deploy/assets/*/{LICENCE_FILE}")
    }
    assert f"{MODEL}/{LICENCE_FILE}" in weights
    licences = {"LICENSE", *vendored, *weights}
    place = f"lentigo-{__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        metadata = message_from_bytes(archive.read(f"{place}/METADATA"))
        for name in licences:
            assert archive.read(f"{place}/licenses/{name}") == (checkout / name).read_bytes()
    assert set(metadata.get_all("License-File", [])) == licences
    assert metadata["License-Expression"] == "MIT AND CC-BY-NC-4.0"


def test_archive_and_checkout_make_the_same_wheel(checkout: Path, wheel: Path, tmp_path: Path) -> None:
    must(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, checkout)
    assert filecmp.cmp(wheel, tmp_path / wheel.name, shallow=False)


def test_archive_has_what_is_committed_and_nothing_of_a_user(checkout: Path, built: Path) -> None:
    with tarfile.open(built / f"lentigo-{__version__}.tar.gz") as archive:
        found = {Path(name).parts[1] for name in archive.getnames()}
    strays = {Path(name).parts[0] for name in STRAY_FILES}
    assert found == {path.name for path in checkout.iterdir()} - strays | {"PKG-INFO"}


def test_environment_is_small_and_has_no_training_package(programs: Path) -> None:
    code = f"from importlib.util import find_spec; print([name for name in {NOT_IN_THE_RUNTIME} if find_spec(name)])"
    assert must(programs / "python", "-c", code).strip() == "[]"
    files = [path for path in programs.parent.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) < LARGEST_ENVIRONMENT_BYTES


def test_it_is_the_installed_package(programs: Path, tmp_path: Path) -> None:
    place = must(programs / "python", "-c", "import lentigo; print(lentigo.__file__)", folder=tmp_path)
    assert Path(place.strip()).is_relative_to(programs.parent)
    assert must(programs / "lentigo", "--version", folder=tmp_path) == f"lentigo {__version__}\n"


def test_predicts(programs: Path, model: Path, picture: Path) -> None:
    out = must(programs / "lentigo", "predict", picture, "--model", model, "--format", "jsonl", folder=picture.parent)
    answer: dict[str, Any] = json.loads(out)
    here = Classifier.load(model).predict(picture)[0]
    assert answer["label"] == here.label
    assert answer["logits"] == pytest.approx(here.logits, abs=1e-4)


@pytest.mark.skipif(not (ASSETS / DEFAULT_MODEL / MODEL_FILE).is_file(), reason="there is no shipped model yet")
def test_predicts_with_the_shipped_model(programs: Path, picture: Path) -> None:
    out = must(programs / "lentigo", "predict", picture, "--format", "jsonl", folder=picture.parent)
    assert json.loads(out)["model"] == DEFAULT_MODEL


def test_scores(programs: Path, tmp_path: Path) -> None:
    labels = np.arange(28) % len(CLASS_CODES)
    logits = np.eye(len(CLASS_CODES), dtype=np.float32)[np.where(labels == 0, 1, labels)]
    names = tuple(f"image-{number}" for number in range(28))
    Predictions(names, names, labels.astype(np.int64), logits).to_csv(tmp_path / "val.csv")
    out = must(programs / "lentigo", "score", "val.csv", "--resamples", 100, "--json", folder=tmp_path)
    assert json.loads(out)["balanced_accuracy"]["value"] == pytest.approx(6 / 7), "one class of seven is never right"


def test_serves(programs: Path, model: Path, picture: Path) -> None:
    command = [str(programs / "lentigo"), "serve", str(model), "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, cwd=picture.parent, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r"Lentigo: (\S+)", line)
            assert found is not None, line + process.stderr.read()
            with httpx.Client(base_url=found[1], timeout=30) as client:
                assert client.get("/api/health").json()["version"] == __version__
                assert "<title>" in client.get("/").text
                (answer,) = client.post("/api/predict", files={"images": picture.read_bytes()}).json()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
    assert answer["label"] == Classifier.load(model).predict(picture)[0].label


def test_training_names_the_extra_that_it_needs(programs: Path, tmp_path: Path) -> None:
    done = run(programs / "lentigo", "demo", "demo", folder=tmp_path)
    assert done.returncode == 2
    assert 'pip install "lentigo[train]"' in done.stderr
    assert list(tmp_path.iterdir()) == []
