"""The model in the package, where it is there: whole, small, on stated terms, and without a trace of a machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lentigo.core.shipped import ASSETS, DEFAULT_MODEL, START_FILE
from lentigo.deploy.classifier import Classifier
from lentigo.deploy.exported import (
    CARD_FILE,
    GOLDEN_FOLDER,
    LICENCE_FILE,
    MODEL_FILE,
    PARITY_FILE,
    ExportedModel,
    VariantName,
)
from lentigo.deploy.golden import check_golden
from lentigo.models.checkpoint import load_checkpoint
from lentigo.models.network import build_network, find_architecture
from lentigo.models.weights import load_weights

FOLDER = ASSETS / DEFAULT_MODEL
LARGEST_BYTES = 12_000_000
INT8_TOLERANCE = 0.5
"""Another processor may end one step of a scale elsewhere; see `check_golden`."""
MACHINE_PATH = re.compile(rb"(?<![\w./-])/(?:home|root|work|tmp|mnt|Users)/[\w.-]+|[A-Z]:\\Users")
MODEL = ExportedModel.load(FOLDER) if (FOLDER / MODEL_FILE).is_file() else None

pytestmark = pytest.mark.skipif(MODEL is None, reason=f"no {MODEL_FILE} in the package: make the shipped model first")


def files() -> list[Path]:
    return sorted(path for path in FOLDER.rglob("*") if path.is_file())


def test_folder_is_whole_and_small() -> None:
    assert MODEL is not None
    expected = {MODEL_FILE, PARITY_FILE, CARD_FILE, LICENCE_FILE, START_FILE, GOLDEN_FOLDER}
    assert {path.name for path in FOLDER.iterdir()} == expected | {one.file for one in MODEL.variants.values()}
    assert sum(path.stat().st_size for path in files()) <= LARGEST_BYTES


def test_terms_and_origin_are_stated() -> None:
    assert MODEL is not None
    assert (MODEL.name, MODEL.synthetic) == (DEFAULT_MODEL, False)
    assert "CC BY-NC 4.0" in MODEL.licence
    assert "creativecommons.org/licenses/by-nc/4.0" in (FOLDER / LICENCE_FILE).read_text(encoding="utf-8")
    assert MODEL.licence.split(";")[0].split("(")[0] in (FOLDER / CARD_FILE).read_text(encoding="utf-8")
    for fact in ("recipe", "start", "seed", "data", "catalog_sha256", "lentigo", "commit"):
        assert MODEL.provenance[fact], fact


def test_no_file_names_a_place_on_a_machine() -> None:
    found = {path.name: MACHINE_PATH.findall(path.read_bytes()) for path in files() if path.suffix != ".jpg"}
    assert {name: places for name, places in found.items() if places} == {}


@pytest.mark.parametrize("variant", () if MODEL is None else tuple(MODEL.variants))
def test_golden_inputs(variant: VariantName) -> None:
    classifier = Classifier.load(variant=variant, threads=1)
    assert classifier.calibrated
    tolerance = INT8_TOLERANCE if variant == "int8" else None
    check_golden(
        FOLDER / GOLDEN_FOLDER,
        lambda path: classifier.predict(path)[0].logits,
        variant=variant,
        tolerance=tolerance,
    )


def test_page_about_phones_says_where_it_is() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "phone.md").read_text(encoding="utf-8")
    found = re.search(r'The shipped model needs no export\.(.*?)\n\n    python -c "(.*)"\n', page, re.DOTALL)
    assert found is not None
    done = subprocess.run([sys.executable, "-c", found[2]], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == FOLDER
    name, size = re.findall(r"([\w.]+\.onnx) \((.*?) MB\)", found[1])[0]
    assert f"{(FOLDER / name).stat().st_size / 1e6:.1f}" == size
    for other in (MODEL_FILE, GOLDEN_FOLDER, LICENCE_FILE):
        assert other in found[1]
        assert (FOLDER / other).exists()


def test_checkpoint_is_that_of_the_graphs() -> None:
    """Half precision loads as a model, and as a start whose head is kept."""
    assert MODEL is not None
    network, spec = load_checkpoint(FOLDER / START_FILE)
    assert (spec.architecture, spec.preprocess) == (MODEL.architecture, MODEL.preprocess)
    fresh = build_network(spec.architecture, len(spec.classes))
    report = load_weights(fresh, spec.architecture, find_architecture(spec.architecture), DEFAULT_MODEL)
    assert (report.replaced, report.missing, report.unused) == ((), (), ())
    assert report.origin.startswith(f"{DEFAULT_MODEL} ")
    head = find_architecture(spec.architecture).head
    if MODEL.head_bias:
        assert network.get_submodule(head).bias.tolist() == pytest.approx(MODEL.head_bias, abs=1e-3)
