"""The page's other modules against the Python that they repeat."""

from __future__ import annotations

import csv
import io
import json
import re
import struct
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from lentigo.core.taxonomy import CLASS_CODES, CLASSES
from lentigo.data import srgb
from lentigo.data.quality import LIMITS, check_quality
from lentigo.data.synthetic import write_synthetic
from lentigo.deploy.activation_map import activation_maps, overlay
from lentigo.deploy.classifier import Classifier
from lentigo.deploy.engine import Failure, Outcome
from lentigo.deploy.inputs import Item
from lentigo.deploy.outputs import Source
from lentigo.deploy.prediction import Prediction
from lentigo.deploy.row_files import write_rows
from lentigo.deploy.static_site import PAGE_FILES, RUNTIME_FILES

if TYPE_CHECKING:
    from tests.web.conftest import Node

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> list[Image.Image]:
    """Drawn lesions of several sizes, then each spoilt in one way."""
    table = write_synthetic(tmp_path_factory.mktemp("drawn"), num_images=3, size_px=160, seed=2)
    paths = sorted(path for path in table.parent.rglob("*") if path.suffix in (".jpg", ".png"))
    first, *others = (Image.open(path).convert("RGB") for path in paths)
    spoilt = [
        first.filter(ImageFilter.GaussianBlur(9)),
        first.point(lambda level: level // 6),
        first.point(lambda level: min(255, level + 150)),
        first.convert("L").convert("RGB"),
        first.resize((90, 400)),
        Image.new("RGB", (130, 130), (200, 150, 140)),
        Image.merge("RGB", first.split()[::-1]),
        Image.fromarray(np.random.default_rng(1).integers(0, 256, (200, 300, 3), dtype=np.uint8)),
    ]
    return [first, *others, *spoilt]


def test_quality_is_that_of_python(node: Node, drawings: list[Image.Image]) -> None:
    found = node.call("quality.js", [["measureQuality", node.image(np.asarray(one))] for one in drawings])
    flags = node.call("quality.js", [["qualityFlags", values] for values in found])
    texts = node.call("quality.js", [["qualityText", *item] for values in found for item in values.items()])
    expected = [check_quality(image) for image in drawings]
    for quality, values, names in zip(expected, found, flags, strict=True):
        for check in quality.checks:
            value = values.pop(check.name)
            assert value == (None if check.value is None else pytest.approx(check.value, rel=1e-5, abs=1e-6)), check
        assert not values
        assert tuple(names) == quality.flags
    assert [text for text in texts if text] == [text for quality in expected for text in quality.texts]
    flagged = {name for names in flags for name in names}
    assert len(flagged) > len(LIMITS) / 2, "the pictures must make most checks speak"


def decisions(
    node: Node,
    classifier: Classifier,
    logits: np.ndarray,
    flags: list[tuple[str, ...]],
    distances: np.ndarray | None = None,
) -> list[Any]:
    """What decide.js makes of logits (N, 7) and distances (N,)."""
    shared = {"spec": classifier.spec.model_dump(mode="json"), "variant": "fp32"}
    each = [None] * len(logits) if distances is None else distances.tolist()
    calls = [
        ["decide", {"name": f"{i}", "logits": row.tolist(), "distance": each[i], "flags": flags[i], **shared}]
        for i, row in enumerate(logits)
    ]
    return node.call("decide.js", calls)


@pytest.mark.parametrize("model", ["tiny_model", "tiny_gray_model"])
def test_decisions_are_those_of_python(node: Node, request: pytest.FixtureRequest, model: str) -> None:
    classifier = Classifier.load(request.getfixturevalue(model))
    logits = np.random.default_rng(0).normal(scale=2.0, size=(60, 7)).astype(np.float32)
    flags: list[tuple[str, ...]] = [("blur", "contrast") if i % 9 == 0 else () for i in range(len(logits))]
    limit, distances = classifier.outlier_limit, None
    if limit is not None:
        around = (limit.threshold, *limit.beyond, 0.0, 0.9 * limit.threshold, 2 * limit.beyond[-1])
        distances = np.resize(np.array(around, np.float32), len(logits))
    names = [str(i) for i in range(len(logits))]
    expected = [one.as_dict() for one in classifier.decide(names, logits, flags, distances)]
    found = decisions(node, classifier, logits, flags, distances)
    for ours, theirs in zip(found, expected, strict=True):
        numbers = {key for key, value in theirs.items() if isinstance(value, float)} | {"probs", "logits"}
        assert list(ours) == list(theirs)
        for key in theirs:
            assert ours[key] == (pytest.approx(theirs[key], abs=1e-12) if key in numbers else theirs[key]), key
    assert len({one["abstain"] for one in expected}) == 2
    assert {one["outlier"] for one in expected} == ({None} if limit is None else {True, False})


def with_rules(classifier: Classifier, **limits: float | None) -> Classifier:
    """The classifier with other limits of its abstain rules."""
    assert classifier.calibration is not None
    rules = {
        kind: rule.model_copy(update={"limit": limits[kind], "reason": "no limit accepts 28 lesions"})
        for kind, rule in classifier.calibration.rules.items()
    }
    calibration = classifier.calibration.model_copy(update={"rules": rules})
    variant = classifier.spec.variants["fp32"].model_copy(
        update={"calibrations": {"1": calibration.model_dump(mode="json")}}
    )
    spec = classifier.spec.model_copy(update={"variants": {"fp32": variant}})
    return Classifier(spec, classifier.session, "fp32", 1, calibration)


@pytest.mark.parametrize("limits", [{"confidence": None, "set_size": 2}, {"confidence": None, "set_size": None}])
def test_rules_without_a_confidence_limit(node: Node, tiny_model: Path, limits: dict[str, float | None]) -> None:
    classifier = with_rules(Classifier.load(tiny_model), **limits)
    logits = np.random.default_rng(3).normal(scale=2.0, size=(40, 7)).astype(np.float32)
    flags: list[tuple[str, ...]] = [()] * len(logits)
    expected = classifier.decide([""] * len(logits), logits, flags)
    found = decisions(node, classifier, logits, flags)
    assert [one["abstain_reasons"] for one in found] == [list(one.abstain_reasons) for one in expected]
    assert [one["abstain"] for one in found] == [one.abstain for one in expected]


def test_heat_is_that_of_python(node: Node, tiny_model: Path) -> None:
    classifier = Classifier.load(tiny_model)
    side = classifier.spec.preprocess.input_size_px
    pixels = np.random.default_rng(4).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    (turned,) = node.call("heatmap.js", [["turnSquare", node.array(pixels[0])]])
    back = node.values(turned).reshape(pixels.shape)
    assert (back == pixels[:, ::-1, ::-1]).all()
    features, features_back = classifier.feature_maps(pixels), classifier.feature_maps(back)
    for label, code in enumerate(CLASS_CODES):
        expected = activation_maps(classifier, pixels, [code])[0]
        weights = list(classifier.spec.head_weight[label])
        call = ["activationMap", node.array(features[0]), node.array(features_back[0]), weights]
        heat = node.values(node.call("heatmap.js", [call])[0]).reshape(expected.shape)
        np.testing.assert_allclose(heat, expected, atol=1e-5)


def test_heat_looks_like_that_of_python(node: Node) -> None:
    """The layer at the opacity of Python's overlay gives the same picture."""
    from lentigo.deploy.activation_map import OPACITY

    heat = np.random.default_rng(5).random((7, 5)).astype(np.float32)
    (stretched,) = node.call("heatmap.js", [["stretchHeat", node.array(heat), 5, 7, 64]])
    (painted,) = node.call("heatmap.js", [["paintHeat", stretched]])
    layer = node.values(painted).reshape(64, 64, 4).astype(float)
    alpha = OPACITY * layer[..., 3:] / 255
    expected = np.asarray(overlay(Image.new("RGB", (64, 64), (200, 150, 140)), heat))
    mixed = alpha * layer[..., :3] + (1 - alpha) * np.array([200, 150, 140])
    assert np.abs(mixed - expected).max() <= 2


def test_no_evidence_gives_an_empty_map(node: Node) -> None:
    zeros = node.array(np.zeros(8, dtype=np.float32))
    (heat,) = node.call("heatmap.js", [["activationMap", zeros, zeros, [1.0, -1.0]]])
    assert not node.values(heat).any()


def test_saved_results_are_those_of_the_command_line(node: Node, tiny_model: Path, tmp_path: Path) -> None:
    classifier = Classifier.load(tiny_model)
    logits = np.random.default_rng(0).normal(scale=2.0, size=(6, 7)).astype(np.float32)
    names = ['=evil, "x".jpg', "+1.jpg", "-1.jpg", "@x.jpg", "plain.jpg", "läsion 1.png"]
    flags: list[tuple[str, ...]] = [("blur", "contrast"), *[()] * 5]
    distances = np.linspace(0, 2, 6, dtype=np.float32)
    answers: list[Prediction | Failure] = [*classifier.decide(names, logits, flags, distances)]
    answers += [
        replace(answers[4], outlier=None, abstain=None),
        Failure("notes.jpg", "no image, at all", "Convert it."),
    ]
    outcomes = [Outcome(Item(one.name, one.name, tmp_path), one) for one in answers]
    write_rows(outcomes, tmp_path / "rows.csv", Source.of(classifier), "csv")
    facts = {"spec": classifier.spec.model_dump(mode="json"), "variant": "fp32", "views": 1}
    plain = [asdict(one) if isinstance(one, Failure) else one.as_dict() for one in answers]
    cards = [
        {"prediction": None if "error" in one else one, "problem": one if "error" in one else None, "facts": facts}
        for one in plain
    ]
    text, table, bare = node.call(
        "export.js", [["toJson", cards], ["toCsv", cards], ["toCsv", [cards[-1] | {"facts": None}]]]
    )
    assert json.loads(text) == json.loads(json.dumps(plain))
    assert table == (tmp_path / "rows.csv").read_text(encoding="utf-8")
    [row] = csv.DictReader(io.StringIO(bare))
    assert {key: value for key, value in row.items() if value} == {"name": "notes.jpg", "error": "no image, at all"}


def test_words(node: Node, tiny_model: Path) -> None:
    classifier = Classifier.load(tiny_model)
    calibration = classifier.spec.variants["fp32"].calibrations["1"]
    names = {one.code: one.name for one in CLASSES}
    sets = [[], ["mel"], ["mel", "nv"], ["akiec", "mel", "nv"], list(CLASS_CODES)]
    probs = {"nv": 0.6, "mel": 0.3, "akiec": 0.1} | dict.fromkeys(("bcc", "bkl", "df", "vasc"), 0.0)
    calls = [["setWords", {"conformal_set": one, "probs": probs}, calibration] for one in sets]
    none, single, two, three, everything = node.call("wording.js", calls)
    assert none == "None of the seven kinds fits well."
    assert single == f"Only {names['mel']} is left once unlikely kinds are ruled out."
    assert two == f"Cannot tell between {names['nv']} and {names['mel']}."
    assert three == f"Cannot tell between {names['nv']}, {names['mel']} and {names['akiec']}."
    assert everything == "Cannot tell: none of the seven kinds can be ruled out."
    strange = "image of another kind: farther from the training images than 9 of 9 val images"
    told = {"abstain": True, "abstain_reasons": [strange, "quality of the picture: blur"], "confidence": 1.0}
    calls = [["abstainWords", told | {"conformal_set": ["mel"], "abstain": one}, calibration] for one in (True, False)]
    said, silent = node.call("wording.js", calls)
    assert said == ["Image of another kind: farther from the training images than 9 of 9 validation images."]
    assert silent == []
    shares = node.call("wording.js", [["percent", share] for share in (0.0, 0.004, 0.006, 0.5, 0.996, 1.0)])
    assert shares == ["<1%", "<1%", "1%", "50%", ">99%", ">99%"]
    point = next(one for one in calibration["operating_points"] if one["goal"] == "sensitivity")
    key = f"malignant_sensitivity_{round(100 * point['level'])}"
    above, below = node.call(
        "wording.js", [["riskWords", {"operating_points": {key: called}}, calibration] for called in (True, False)]
    )
    assert above.startswith("Suspicious: at or above the line")
    assert below.startswith("Below the line")
    assert f"{point['detected']} of {point['n_positive']} malignant" in above


@pytest.mark.parametrize("cut", [0.2, 0.6, 0.999])
def test_cut_jpegs_are_seen(node: Node, cut: float) -> None:
    """Also with a thumbnail in the header, which has an end of its own."""
    noise = Image.fromarray(np.random.default_rng(6).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    thumbnail, stream = io.BytesIO(), io.BytesIO()
    noise.resize((8, 8)).save(thumbnail, "JPEG")
    noise.save(stream, "JPEG", exif=b"Exif\0\0" + thumbnail.getvalue())
    whole = np.frombuffer(stream.getvalue(), dtype=np.uint8)
    short = whole[: int(len(whole) * cut)]
    found = node.call("decode.js", [["hasJpegEnd", node.array(one)] for one in (whole, short)])
    assert found == [True, False]


def turned_webp(little: bool, prefix: bytes, turn: int = 6) -> bytes:
    """A WebP file whose EXIF has another entry before the turn."""
    order = "<" if little else ">"
    entries = struct.pack(f"{order}HHIHH", 0x0100, 3, 1, 8, 0) + struct.pack(f"{order}HHIHH", 0x0112, 3, 1, turn, 0)
    head = (b"II" if little else b"MM") + struct.pack(f"{order}HIH", 42, 8, 2)
    stream = io.BytesIO()
    exif = prefix + head + entries + bytes(4)
    Image.new("RGB", (8, 9), "red").save(stream, "WEBP", lossless=True, exif=exif, xmp=b"odd")
    return stream.getvalue()


def as_bytes(content: bytes) -> np.ndarray:
    return np.frombuffer(content, dtype=np.uint8)


@pytest.mark.parametrize("little", [True, False])
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0", b"Exif\0\0Exif\0\0"])
def test_turns_of_webp_are_those_of_python(node: Node, little: bool, prefix: bytes) -> None:
    turns = range(11)
    files = [turned_webp(little, prefix, turn) for turn in turns]
    expected = [srgb.orientation(Image.open(io.BytesIO(one))) for one in files]
    assert expected == [turn if 1 <= turn <= 8 else 1 for turn in turns]
    assert node.call("decode.js", [["takeWebpTurn", node.array(as_bytes(one))] for one in files]) == expected


def test_broken_exif_of_webp_turns_nothing(node: Node) -> None:
    """Cut anywhere, and with any byte of its EXIF changed, it is a turn all the same, and no error."""
    content = turned_webp(little=True, prefix=b"")
    start = content.index(b"EXIF")
    changed = [content[:i] + b"\xff" + content[i + 1 :] for i in range(start, start + 40)]
    files = [content, *(content[:length] for length in range(len(content))), *changed]
    found = node.call("decode.js", [["takeWebpTurn", node.array(as_bytes(one))] for one in files])
    assert found[0] == 6
    assert set(found) == {1, 6}
    assert found[1 : 1 + start] == [1] * start
    unflagged = bytearray(content)
    unflagged[20] &= ~8
    assert node.call("decode.js", [["takeWebpTurn", node.array(as_bytes(bytes(unflagged)))]]) == [1]


def png_chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + b"sums"


def test_chunks_of_colour_leave_a_png(node: Node) -> None:
    signature = b"\x89PNG\r\n\x1a\n"
    kept = [png_chunk(b"IHDR", bytes(13)), png_chunk(b"iCCP", b"gAMA"), png_chunk(b"IDAT", b"cICP"), png_chunk(b"IEND")]
    left_out = [
        png_chunk(kind, bytes(size)) for kind, size in ((b"gAMA", 4), (b"cHRM", 32), (b"cICP", 4), (b"gAMA", 0))
    ]
    mixed = [part for pair in zip(kept, left_out, strict=True) for part in pair]
    whole = signature + b"".join(mixed)
    wild = signature + b"\xff\xff\xff\xffgAMA" + bytes(9)
    files = [whole, *(whole[:length] for length in range(len(whole))), wild, b"another kind of file: gAMA"]
    found = node.call("decode.js", [["withoutPngColours", node.array(as_bytes(one))] for one in files])
    results = [node.values(one).tobytes() for one in found]
    assert results[0] == signature + b"".join(kept)
    assert all(len(result) <= len(file) for result, file in zip(results, files, strict=True))
    assert results[-2:] == [signature, files[-1]]


def test_what_a_module_exports_is_used(web: Path) -> None:
    """By another module, or by a test that holds it against Python."""
    sources = {path.name: path.read_text(encoding="utf-8") for path in web.glob("*.js")}
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("*.py"))
    imported = {
        (file, name.strip())
        for text in sources.values()
        for names, file in re.findall(r'^import \{(.*?)\} from "\./(\w+\.js)"', text, re.MULTILINE)
        for name in names.split(",")
    }
    exported = [
        (file, name)
        for file, text in sources.items()
        for name in re.findall(r"^export (?:async )?(?:function|class|const) (\w+)", text, re.MULTILINE)
    ]
    assert len(exported) > 20
    assert [one for one in exported if one not in imported and f'"{one[1]}"' not in tests] == []


def test_facts_are_up_to_date(web: Path) -> None:
    from importlib.util import module_from_spec, spec_from_file_location

    specification = spec_from_file_location("web_facts", TOOLS / "web_facts.py")
    assert specification is not None
    assert specification.loader is not None
    module = module_from_spec(specification)
    specification.loader.exec_module(module)
    assert (web / "facts.js").read_text(encoding="utf-8") == module.facts_script(), "run `python tools/web_facts.py`"


def test_lists_of_files_agree(web: Path) -> None:
    """What is built is what is kept for use without a network; licences and the keeper itself are not."""
    kept = set(re.findall(r'^ {2}"\./(.*)",$', (web / "service-worker.js").read_text(encoding="utf-8"), re.MULTILINE))
    built = {*PAGE_FILES, *(f"vendor/{file}" for file in RUNTIME_FILES), "model/model.json", ""}
    assert kept == built - {"service-worker.js", "vendor/LICENCE.txt"}
    assert all((web / file).is_file() for file in PAGE_FILES)
