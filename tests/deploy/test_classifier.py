"""The classifier without torch: the right numbers for every kind of image, and a plain word for what is none."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from lentigo.core.errors import CheckpointError, ConfigError, DataError
from lentigo.core.predictions import softmax
from lentigo.core.taxonomy import CLASS_CODES, MALIGNANT_LABELS, MELANOMA_LABEL
from lentigo.data.synthetic import draw_lesion
from lentigo.deploy import classifier as classifier_module
from lentigo.deploy.classifier import Classifier, Judged
from lentigo.deploy.exported import ExportedModel, VariantFiles
from lentigo.deploy.graph_session import image_views
from lentigo.deploy.image_input import ImageInput
from lentigo.deploy.phone_record import PhoneFiles
from lentigo.deploy.static_site import build_static
from lentigo.evaluation.calibration import Calibration
from lentigo.training.inference import _views

Pixels = NDArray[np.uint8]
NOT_IN_THE_RUNTIME = (
    "torch",
    "torchvision",
    "pandas",
    "scipy",
    "pyarrow",
    "matplotlib",
    "sklearn",
    "safetensors",
    "onnx",
)


@pytest.fixture(scope="module")
def classifier(tiny_model: Path) -> Classifier:
    return Classifier.load(tiny_model, threads=1)


@pytest.fixture(scope="module")
def drawings() -> list[Pixels]:
    """Two a class, 160 px."""
    return [draw_lesion(code, lesion_seed=seed, size_px=160) for seed in (1, 2) for code in CLASS_CODES]


@pytest.fixture(scope="module")
def squares(classifier: Classifier, drawings: list[Pixels]) -> Pixels:
    return np.stack([classifier.prepare(one).pixels for one in drawings])


def changed_model(tiny_model: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of the model whose description was changed."""
    shutil.copytree(tiny_model, folder)
    values = json.loads((folder / "model.json").read_text())
    change(values)
    (folder / "model.json").write_text(json.dumps(values))
    return folder


def torch_logits(classifier: Classifier, weights: dict[str, NDArray[np.float32]], squares: Pixels) -> torch.Tensor:
    """(N, 7) of torch with the same weights, as the network is trained."""
    preprocess = classifier.spec.preprocess
    inputs = torch.from_numpy(np.stack([preprocess.to_input(Image.fromarray(one)) for one in squares]))
    kernel, head, bias = (torch.from_numpy(weights[name]) for name in ("convolution", "head_weight", "head_bias"))
    parts = []
    for view in _views(inputs, classifier.views):
        features = torch.relu(torch.nn.functional.conv2d(view, kernel, stride=4)).mean(dim=(2, 3))
        parts.append(features @ head.T + bias)
    return torch.stack(parts).mean(dim=0)


@pytest.mark.parametrize("views", [1, 2, 4, 8])
def test_logits_are_those_of_torch(
    tiny_model: Path, tiny_weights: dict[str, NDArray[np.float32]], squares: Pixels, views: int
) -> None:
    classifier = Classifier.load(tiny_model, views=views, threads=1)
    found = classifier.logits(squares)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, torch_logits(classifier, tiny_weights, squares).numpy(), atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_views_are_those_of_the_training_side(squares: Pixels, count: int) -> None:
    expected = _views(torch.from_numpy(squares.transpose(0, 3, 1, 2).copy()), count)
    found = list(image_views(squares, count))
    assert len(found) == count
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other.numpy().transpose(0, 2, 3, 1))
    assert len({one.tobytes() for one in found}) == count


def test_eight_views_do_not_depend_on_how_the_camera_was_held(tiny_model: Path, squares: Pixels) -> None:
    classifier = Classifier.load(tiny_model, views=8, threads=1)
    upright = classifier.logits(squares)
    for turned in (squares[:, ::-1], squares[:, :, ::-1], np.rot90(squares, axes=(1, 2))):
        np.testing.assert_allclose(classifier.logits(turned), upright, atol=1e-5)
    one_view = Classifier.load(tiny_model, threads=1)
    assert np.abs(one_view.logits(squares[:, ::-1]) - one_view.logits(squares)).max() > 1e-3


@pytest.mark.parametrize("model", ["tiny_model", "tiny_gray_model"])
@pytest.mark.parametrize("size", [(50, 70), (70, 50), (32, 32), (48, 48), (1, 1), (200, 3)])
def test_squares_are_those_of_the_contract(model: str, size: tuple[int, int], request: pytest.FixtureRequest) -> None:
    classifier = Classifier.load(request.getfixturevalue(model), threads=1)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    preprocess = classifier.spec.preprocess
    pixels = classifier.prepare(image).pixels
    assert pixels.shape == (32, 32, 3)
    np.testing.assert_array_equal(preprocess.to_input(Image.fromarray(pixels)), preprocess(image))


def test_decisions_are_those_of_the_calibration(classifier: Classifier, squares: Pixels) -> None:
    logits = classifier.logits(squares)
    fitted = Calibration.model_validate(classifier.spec.variants["fp32"].calibrations["1"])
    expected = fitted.decide(logits)
    names = [f"lesion {i}" for i in range(len(squares))]
    found = classifier.decide(names, logits, [()] * len(squares))
    assert classifier.calibrated
    assert [one.name for one in found] == names
    for row, one in enumerate(found):
        probs = expected.probs[row]
        assert one.logits == tuple(logits[row].tolist())
        assert list(one.probs) == list(CLASS_CODES)
        assert list(one.probs.values()) == probs.tolist()
        assert one.label == CLASS_CODES[probs.argmax()]
        assert one.confidence == probs.max()
        assert one.malignant_risk == pytest.approx(probs[list(MALIGNANT_LABELS)].sum(), abs=1e-12)
        assert one.melanoma_risk == probs[MELANOMA_LABEL]
        assert one.operating_points == {name: bool(called[row]) for name, called in expected.positive.items()}
        members = expected.sets["class_conditional"][row]
        assert one.conformal_set == tuple(code for code, member in zip(CLASS_CODES, members, strict=True) if member)
        assert one.abstain is not bool(expected.accepted["confidence"][row])
        assert bool(one.abstain_reasons) == one.abstain
        assert (one.model, one.variant, one.views) == ("tiny", "fp32", 1)
    assert {one.abstain for one in found} == {True, False}, "the test should see both"
    assert len(found[0].operating_points) == 6


def test_flags_of_the_picture_are_a_reason_to_abstain(classifier: Classifier, squares: Pixels) -> None:
    logits = classifier.logits(squares)
    sure = max(classifier.decide(["a"] * len(squares), logits, [()] * len(squares)), key=lambda one: one.confidence)
    flagged = classifier.decide(["a"], np.array([sure.logits], np.float32), [("blur", "contrast")])[0]
    assert (sure.abstain, sure.abstain_reasons) == (False, ())
    assert (flagged.abstain, flagged.quality_flags) == (True, ("blur", "contrast"))
    assert flagged.abstain_reasons == ("quality of the picture: blur", "quality of the picture: contrast")


def test_without_a_calibration_nothing_is_made_up(tiny_model: Path, squares: Pixels) -> None:
    for classifier in (Classifier.load(tiny_model, views=2), Classifier.load(tiny_model, variant="int8", views=4)):
        assert not classifier.calibrated
        logits = classifier.logits(squares[:2])
        plain, flagged = classifier.decide(["a", "b"], logits, [(), ("blur",)])
        assert list(plain.probs.values()) == softmax(logits)[0].tolist()
        assert (plain.operating_points, plain.conformal_set, plain.abstain) == ({}, (), None)
        reason = f"not calibrated for {classifier.variant} with {classifier.views} views"
        assert plain.abstain_reasons == (reason,)
        assert (flagged.abstain, flagged.abstain_reasons[0]) == (True, reason)
    assert Classifier.load(tiny_model, variant="int8").calibrated


@pytest.mark.parametrize(
    ("limit", "size_limit", "accepted", "reason"),
    [
        (0.0, None, True, ""),
        (1.1, None, False, r"confidence 0\.\d{3} is below 1\.100"),
        (None, 7, True, ""),
        (None, 0, False, r"\d classes in the set; 1 to 0 are accepted"),
        (None, None, False, "no rule for abstaining could be found on val: too few"),
    ],
)
def test_the_rule_by_set_size_stands_in(
    tiny_model: Path,
    tmp_path: Path,
    squares: Pixels,
    limit: float | None,
    size_limit: int | None,
    accepted: bool,
    reason: str,
) -> None:
    def change(values: dict[str, Any]) -> None:
        rules = values["variants"]["fp32"]["calibrations"]["1"]["rules"]
        rules["confidence"] |= {"limit": limit, "reason": "too few"}
        rules["set_size"] |= {"limit": size_limit, "reason": "too few"}

    changed = Classifier.load(changed_model(tiny_model, tmp_path / "export", change), threads=1)
    for one in changed.decide(["a"] * 3, changed.logits(squares[:3]), [()] * 3):
        assert one.abstain is not accepted
        assert re.fullmatch(reason, "".join(one.abstain_reasons)) or one.abstain_reasons[0].startswith(reason)


def test_every_kind_of_input_is_the_same_image(classifier: Classifier, drawings: list[Pixels], tmp_path: Path) -> None:
    path = tmp_path / "Läsion 病变 #1.png"
    Image.fromarray(drawings[0]).save(path)
    content = path.read_bytes()
    given: list[ImageInput] = [path, str(path), content, bytearray(content), memoryview(content)]
    given += [io.BytesIO(content), Image.open(path), drawings[0]]
    with path.open("rb") as file:
        found = classifier.predict([*given, file])
    assert [one.name for one in found] == [str(path)] * 2 + [f"image-{number}" for number in range(3, 10)]
    assert {one.logits for one in found} == {found[0].logits}
    assert {one.quality_flags for one in found} == {found[0].quality_flags}
    given[5] = io.BytesIO(content)
    for one in given:
        assert len(classifier.predict(one)) == 1


def test_turned_photographs_are_upright_however_they_come(
    classifier: Classifier, drawings: list[Pixels], tmp_path: Path
) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(drawings[0]).resize((160, 100)).save(path, exif=exif)
    file, pillow, content = classifier.predict([path, Image.open(path), path.read_bytes()])
    assert file.logits == pillow.logits == content.logits
    assert file.logits == classifier.predict(ImageOps.exif_transpose(Image.open(path)))[0].logits
    assert file.logits != classifier.predict(np.asarray(Image.open(path)))[0].logits


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "YCbCr", "HSV", "I;16"])
def test_pillow_images_of_every_mode(classifier: Classifier, drawings: list[Pixels], mode: str) -> None:
    image = Image.fromarray(drawings[0]).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    assert image.mode == mode
    assert sum(classifier.predict(image)[0].probs.values()) == pytest.approx(1)


def test_arrays_without_colour_and_with_alpha(classifier: Classifier, drawings: list[Pixels]) -> None:
    rgb = drawings[0]
    gray = np.asarray(Image.fromarray(rgb).convert("L"))
    alpha = np.full((*gray.shape, 1), 255, np.uint8)
    stacked = np.stack([gray] * 3, axis=-1)
    assert classifier.predict(gray)[0].logits == classifier.predict(stacked)[0].logits
    assert classifier.predict(np.concatenate([rgb, alpha], axis=2))[0].logits == classifier.predict(rgb)[0].logits
    clear = np.concatenate([rgb, 0 * alpha], axis=2)
    assert classifier.predict(clear)[0].logits == classifier.predict(np.full_like(rgb, 255))[0].logits
    strided = np.asfortranarray(rgb)[:, ::-1][:, ::-1]
    assert classifier.predict(strided)[0].logits == classifier.predict(rgb)[0].logits


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3)), "image-1: expected an array of uint8, 0..255; found float64"),
        (np.zeros((4, 4, 3), np.float32), "found float32"),
        (np.zeros((4, 4), np.uint16), "found uint16"),
        (np.zeros((4, 4, 3), np.int8), "found int8"),
        (np.zeros((3, 5, 6), np.uint8), r"found \(3, 5, 6\)"),
        (np.zeros((4, 4, 2), np.uint8), r"found \(4, 4, 2\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"found \(2, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), r"found \(0, 4, 3\)"),
        (np.zeros(4, np.uint8), r"found \(4,\)"),
        (Image.new("RGB", (0, 5)), "found 0 x 5"),
        (b"", "image-1 is empty"),
        (b"no image at all", "image-1 is not an image"),
        ([None], "image-1: expected a path, bytes, an open binary file, a Pillow image or an array; found NoneType"),
        ([[1, 2]], "found list"),
        (None, "image-1: expected a path, .* found NoneType"),
        (5, "found int"),
        ({"a.jpg": b""}, "found dict"),
        (bytearray(b"no image at all"), "image-1 is not an image"),
        (memoryview(b""), "image-1 is empty"),
        (io.StringIO("text"), "image-1: expected a file that gives bytes; found StringIO, which gives str"),
        (io.BytesIO(b"no image at all"), "image-1 is not an image"),
        (io.BytesIO(), "image-1: expected a file at its start; found BytesIO at its end"),
        (io.BytesIO, "image-1: this type cannot be read"),
        ("a\0b", r"no file can be named 'a\\x00b'"),
        ("none.jpg", "no image file at none.jpg"),
    ],
)
def test_what_is_no_image_is_refused_by_name(classifier: Classifier, image: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        classifier.predict(image)
    assert caught.value.remedy
    assert "row" not in caught.value.remedy, "the caller has no table"


def test_files_that_cannot_be_read_are_named(classifier: Classifier, drawings: list[Pixels], tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(drawings[0]).save(stream, "JPEG")
    good, cut = tmp_path / "good.jpg", tmp_path / "größe.jpg"
    good.write_bytes(stream.getvalue())
    cut.write_bytes(stream.getvalue()[:-700])
    for bad in (cut, tmp_path):
        with pytest.raises(DataError, match=re.escape(str(bad))):
            classifier.predict([good, bad])
        with pytest.raises(DataError, match=re.escape(str(bad))):
            classifier.prepare(bad)
    with pytest.raises(DataError, match="image-2 is truncated"):
        classifier.predict([good, cut.read_bytes()])
    with pytest.raises(DataError, match="member 7 is truncated"):
        classifier.prepare(cut.read_bytes(), "member 7")
    with pytest.raises(DataError, match="image-1 is truncated"):
        classifier.predict(Image.open(cut))


def test_no_images_no_predictions(classifier: Classifier) -> None:
    assert classifier.predict([]) == []
    assert classifier.predict(()) == []
    assert classifier.logits(np.empty((0, 32, 32, 3), np.uint8)).shape == (0, 7)
    assert classifier.decide([], np.empty((0, 7), np.float32), []) == []


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 31, 32, 3), np.uint8), np.zeros((32, 32, 3), np.uint8), np.zeros((2, 32, 32, 3))]
)
def test_unprepared_pixels_are_refused(classifier: Classifier, pixels: Any) -> None:
    for function in (classifier.logits, classifier.feature_maps):
        with pytest.raises(DataError, match=r"expected pixels \(N, 32, 32, 3\) uint8"):
            function(pixels)


def test_batches_change_nothing_and_bound_what_is_held(
    classifier: Classifier, drawings: list[Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = classifier.predict(drawings)
    counts: list[int] = []
    original = Classifier.judge

    def counted(self: Classifier, pixels: Pixels) -> Judged:
        counts.append(len(pixels))
        return original(self, pixels)

    monkeypatch.setattr(Classifier, "judge", counted)
    for batch_size in (1, 5, 14):
        counts.clear()
        for one, other in zip(classifier.predict(drawings, batch_size=batch_size), whole, strict=True):
            assert one.name == other.name
            assert one.label == other.label
            np.testing.assert_allclose(one.logits, other.logits, atol=1e-5)
        assert max(counts) == batch_size
        assert sum(counts) == len(drawings)


def test_a_generator_is_taken_image_by_image(classifier: Classifier, drawings: list[Pixels]) -> None:
    judged: list[int] = []

    class Counting(Classifier):
        __slots__ = ()

        def judge(self, pixels: Pixels) -> Judged:
            judged.append(len(pixels))
            return super().judge(pixels)

    def given(count: int) -> Iterator[Pixels]:
        for number in range(count):
            assert number - sum(judged) < 4, "more images are taken than a batch has"
            yield drawings[number]

    values = {name: getattr(classifier, name) for name in Classifier.__slots__}
    found = Counting(**values).predict(given(10), batch_size=4)
    assert judged == [4, 4, 2]
    assert [one.name for one in found] == [f"image-{number}" for number in range(1, 11)]
    assert classifier.predict(iter(())) == []


def test_many_threads_at_once(tiny_model: Path, drawings: list[Pixels]) -> None:
    classifier = Classifier.load(tiny_model, views=4, threads=2)
    jobs = [drawings[start : start + 1 + start % 3] for start in range(12)] * 4
    serial = [classifier.predict(job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(classifier.predict, jobs)) == serial


def test_quality_can_be_left_out(tiny_model: Path, drawings: list[Pixels]) -> None:
    blurred = Image.fromarray(drawings[0]).filter(ImageFilter.GaussianBlur(8))
    assert "blur" in Classifier.load(tiny_model).prepare(blurred).quality_flags
    assert Classifier.load(tiny_model, quality=False).prepare(blurred).quality_flags == ()


def test_models_are_found(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for place in (tiny_model, str(tiny_model), tiny_model.parent, tiny_model / "model.json"):
        assert Classifier.load(place).spec.name == "tiny"
    monkeypatch.setattr(classifier_module, "ASSETS", tmp_path)
    with pytest.raises(CheckpointError, match=r"no model at lentigo: .* \(this installation has none\)"):
        Classifier.load()
    shutil.copytree(tiny_model, tmp_path / "lentigo")
    assert Classifier.load().spec.name == "tiny"
    with pytest.raises(CheckpointError, match=r"name of a shipped model \(lentigo\)") as caught:
        Classifier.load("lentiggo")
    assert "lentigo export RUN" in caught.value.remedy


def test_the_int8_variant_has_its_own_graph(tiny_model: Path, squares: Pixels) -> None:
    float32, int8 = Classifier.load(tiny_model), Classifier.load(tiny_model, variant="int8")
    assert (float32.variant, int8.variant) == ("fp32", "int8")
    assert 0 < np.abs(float32.logits(squares) - int8.logits(squares)).max() < 1


def test_int8_is_taken_where_there_is_nothing_else(tiny_model: Path, tmp_path: Path) -> None:
    folder = changed_model(tiny_model, tmp_path / "export", lambda values: values["variants"].pop("fp32"))
    assert Classifier.load(folder).variant == "int8"
    with pytest.raises(CheckpointError, match="has no variant fp32") as caught:
        Classifier.load(folder, variant="fp32")
    assert "--to onnx`" in caught.value.remedy
    with pytest.raises(CheckpointError, match="has no variant fp16") as caught:
        Classifier.load(folder, variant="fp16")
    assert "--to onnx,fp16`" in caught.value.remedy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": 3}, "1, 2, 4 or 8"),
        ({"threads": 0}, "1 thread or more"),
        ({"variant": "float32"}, r"a variant of fp32, fp16, int8; found 'float32' \(did you mean fp32\?\)"),
        ({"variant": "INT8"}, r"did you mean int8\?"),
        ({"variant": ""}, r"found ''\n"),
    ],
)
def test_impossible_options(tiny_model: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Classifier.load(tiny_model, **options)


def test_impossible_batches(classifier: Classifier) -> None:
    with pytest.raises(ConfigError, match="batches of 1 image or more; found 0"):
        classifier.predict([], batch_size=0)


def test_damaged_models_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    damaged = changed_model(tiny_model, tmp_path / "damaged", lambda values: None)
    (damaged / "model.onnx").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="sha256"):
        Classifier.load(damaged)
    digest = hashlib.sha256(b"nonsense").hexdigest()
    nonsense = changed_model(
        damaged, tmp_path / "nonsense", lambda values: values["variants"]["fp32"].update(sha256=digest)
    )
    with pytest.raises(CheckpointError, match=r"model\.onnx cannot be loaded by onnxruntime"):
        Classifier.load(nonsense)
    wrong = changed_model(
        tiny_model,
        tmp_path / "calibration",
        lambda values: values["variants"]["fp32"]["calibrations"]["1"].update(temperature="hot"),
    )
    with pytest.raises(
        CheckpointError, match=r"calibrations\.1\.temperature \(expected a valid number.*, found 'hot'\)"
    ):
        Classifier.load(wrong)
    assert not Classifier.load(wrong, views=2).calibrated, "what is not used is not read"


CALIBRATION = "variants.fp32.calibrations.1"
FITTED = f"{CALIBRATION}.sets.class_conditional"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("variants", {}, "variants (Dictionary should have at least 1 item after validation, not 0, found {})"),
        ("variants.fp32.outlier_limit.threshold", float("nan"), ".threshold (expected a finite number, found nan)"),
        (f"{CALIBRATION}.temperature", 0, f"{CALIBRATION}.temperature (expected greater than 0, found 0)"),
        (f"{CALIBRATION}.temperature", -1, f"{CALIBRATION}.temperature (expected greater than 0, found -1)"),
        (
            f"{CALIBRATION}.temperature",
            float("inf"),
            f"{CALIBRATION}.temperature (expected a finite number, found inf)",
        ),
        (f"{CALIBRATION}.sets", {}, f"{CALIBRATION}.sets (expected class_conditional and marginal; found neither)"),
        (f"{CALIBRATION}.rules", {}, f"{CALIBRATION}.rules (expected confidence and set_size; found neither)"),
        (f"{FITTED}.kind", "marginal", "; found class_conditional of kind marginal, marginal)"),
        (f"{FITTED}.thresholds", [0.1] * 6, f"{FITTED}.thresholds (Tuple should have at least 7 items after "),
        (f"{FITTED}.thresholds", [2] * 7, f"{FITTED}.thresholds.0 (expected less than or equal to 1, found 2)"),
        (f"{CALIBRATION}.class_counts", [1] * 8, f"{CALIBRATION}.class_counts (Tuple should have at most 7 items "),
        (f"{CALIBRATION}.operating_points.0.question", "benign", "questions malignant, melanoma; found benign)"),
        (f"{CALIBRATION}.split", None, f"{CALIBRATION}.split (missing)"),
    ],
)
def test_wrong_values_of_the_description_are_refused(
    tiny_model: Path, tmp_path: Path, key: str, value: Any, message: str
) -> None:
    def change(values: Any) -> None:
        *parents, last = key.split(".")
        for part in parents:
            values = values[int(part) if isinstance(values, list) else part]
        if value is None:
            del values[last]
        else:
            values[last] = value

    folder = changed_model(tiny_model, tmp_path / "export", change)
    with pytest.raises(CheckpointError) as caught:
        Classifier.load(folder)
    assert message in caught.value.message
    assert str(folder / "model.json") in caught.value.message
    assert "Export the run again" in caught.value.remedy


def test_squares_of_another_side_than_the_graph_s_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = changed_model(
        tiny_model, tmp_path / "export", lambda values: values["preprocess"].update(resize_steps_px=[48])
    )
    with pytest.raises(CheckpointError) as caught:
        Classifier.load(folder)
    assert caught.value.message == (
        f"{folder / 'model.onnx'} takes images of 32 x 32 px; expected 48 x 48, the last of "
        "preprocess.resize_steps_px in model.json"
    )


PROGRAM = {"files": {}, "size_bytes": 1, "pixels": "uint8", "made_with": "a test"}


@pytest.mark.parametrize(
    "file", ["../../.bashrc", "/etc/passwd", "sub/model.onnx", "..", ".hidden", "C:\\a.onnx", "a.onnx\n", "", "a" * 300]
)
def test_a_file_name_in_the_description_is_no_path(tiny_model: Path, tmp_path: Path, file: str) -> None:
    changes: dict[str, Callable[[dict[str, Any]], None]] = {
        r"variants\.fp32\.file": lambda values: values["variants"]["fp32"].update(file=file),
        r"phones\.executorch": lambda values: values.update(phones={"executorch": PROGRAM | {"file": file}}),
    }
    for number, (place, change) in enumerate(changes.items()):
        with pytest.raises(CheckpointError, match=rf"is no model description.*: {place}"):
            ExportedModel.load(changed_model(tiny_model, tmp_path / str(number), change))


def test_no_page_is_built_of_a_model_that_names_a_path(tiny_model: Path, tmp_path: Path) -> None:
    model = changed_model(
        tiny_model,
        tmp_path / "model",
        lambda values: values["variants"]["fp32"].update(file="../../escaped.onnx"),
    )
    (tmp_path.parent / "escaped.onnx").write_bytes((model / "model.onnx").read_bytes())  # or it would not be found
    with pytest.raises(CheckpointError, match="is no model description"):
        build_static(model, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_the_exports_own_file_names_are_plain(tiny_model: Path, tmp_path: Path) -> None:
    def rename(values: dict[str, Any]) -> None:
        entry = values["variants"]["fp32"]
        values["variants"] = {name: entry | {"file": file} for name, file in VariantFiles.items()}
        values["phones"] = {name: PROGRAM | {"file": file} for name, file in PhoneFiles.items()}

    spec = ExportedModel.load(changed_model(tiny_model, tmp_path / "all", rename))
    assert {name: one.file for name, one in spec.variants.items()} == VariantFiles
    assert {name: one.file for name, one in spec.phones.items()} == PhoneFiles


def test_graphs_with_other_ends_are_refused(tiny_model: Path) -> None:
    import onnx

    from lentigo.deploy.graph_session import GraphSession

    spec = ExportedModel.load(tiny_model)
    model = onnx.load_from_string(spec.read_graph(tiny_model, "fp32"))
    del model.graph.output[1]
    with pytest.raises(CheckpointError, match="the outputs logits and feature_map; found pixels and logits"):
        GraphSession.open(model.SerializeToString(), "other.onnx", threads=1)


def test_predictions_are_plain_json(classifier: Classifier, drawings: list[Pixels]) -> None:
    found = classifier.predict(drawings[:3])
    for one in found:
        text = json.dumps(one.as_dict(), allow_nan=False)
        assert json.loads(text) == one.as_dict()
        assert set(one.as_dict()) == set(type(one).__slots__)


@settings(max_examples=30, deadline=None)
@given(
    st.one_of(
        arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))),
        arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([3, 4]))),
    )
)
def test_any_array_has_a_coherent_answer(classifier: Classifier, image: Pixels) -> None:
    found = classifier.predict(image)[0]
    assert sum(found.probs.values()) == pytest.approx(1)
    assert found.confidence == max(found.probs.values()) == found.probs[found.label]
    assert 0 <= found.melanoma_risk <= found.malignant_risk <= 1 + 1e-12
    assert "size_px" in found.quality_flags
    assert found.abstain


def test_the_runtime_needs_neither_torch_nor_other_extras(tiny_model: Path, tmp_path: Path) -> None:
    Image.fromarray(draw_lesion("mel", lesion_seed=1, size_px=64)).save(tmp_path / "a.png")
    code = f"""
import sys
for name in {NOT_IN_THE_RUNTIME!r}:
    sys.modules[name] = None
import lentigo.deploy.classifier, lentigo.deploy.activation_map
assert "onnxruntime" not in sys.modules, "it is loaded with a model, not before"
classifier = lentigo.deploy.classifier.Classifier.load({str(tiny_model)!r})
print(classifier.predict("a.png")[0].name)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "a.png"), done.stderr


def test_the_page_s_examples_run(
    repository: Path, tiny_model: Path, drawings: list[Pixels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = repository / "docs" / "how-to" / "classifier.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    assert len(blocks) >= 3
    shutil.copytree(tiny_model, tmp_path / "runs" / "my-run" / "export")
    for name in ("a.jpg", "b.png"):
        Image.fromarray(drawings[0]).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, page.name, "exec"), names)
