"""DICOM photographs: kinds, encodings, colours and frames; patients' names never come out."""

from __future__ import annotations

import importlib.util
import io
import logging
import struct
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from lentigo.core.errors import DataError, LentigoError
from lentigo.data import dicom_frames
from lentigo.data.catalog import Row
from lentigo.data.dicom_header import read_elements
from lentigo.data.images import count_frames, decode_bytes, image_size, load_image, read_bytes

pydicom = pytest.importorskip("pydicom", reason="needs the extra `dicom`")
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
BIG_ENDIAN, IMPLICIT = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2"


def benchmark(name: str) -> ModuleType:
    """A module of the folder benchmarks."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


originals = benchmark("hostile_originals")
dicom_file = originals.dicom_file


def picture(width: int = 60, height: int = 40) -> np.ndarray:
    """Smooth, its four corners differ: (H, W, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width]
    planes = (x * 255 // (width - 1), y * 255 // (height - 1), (x + y) * 255 // (width + height - 2))
    return np.stack(planes, axis=2).astype(np.uint8)


def decoded(data: bytes, frame: int = 0) -> np.ndarray:
    """(H, W, 3) int."""
    return np.asarray(decode_bytes(data, "a.dcm", frame), dtype=int)


def encapsulated(*frames: bytes) -> bytes:
    """Compressed frames as pixel data."""
    return bytes(pydicom.encaps.encapsulate(list(frames)))


def test_first_frame_and_size(tmp_path: Path) -> None:
    frames = np.stack([picture(), np.zeros((40, 60, 3), dtype=np.uint8)])
    path = tmp_path / "a.dcm"
    path.write_bytes(dicom_file(frames, "RGB"))
    assert (np.asarray(load_image(path)) == picture()).all()
    assert image_size(path) == (60, 40)


def test_frames(tmp_path: Path) -> None:
    frames = np.stack([picture(), 255 - picture(), picture() // 2])
    path = tmp_path / "a.dcm"
    path.write_bytes(dicom_file(frames, "RGB"))
    with path.open("rb") as stream:
        assert count_frames(stream, "a.dcm") == 3
        assert stream.tell() == 0
    for index in range(3):
        member = f"frame:{index}"
        assert (np.asarray(load_image(path, member)) == frames[index]).all()
        assert (decoded(path.read_bytes(), index) == frames[index]).all()
        row = Row("a", path, 0, "a", member)
        assert (np.asarray(decode_bytes(read_bytes(row), "row")) == frames[index]).all()
        assert image_size(path, member) == (60, 40)
    for index in (3, -1):
        with pytest.raises(DataError, match="3 frames"):
            decode_bytes(path.read_bytes(), "a.dcm", index)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", BIG_ENDIAN, IMPLICIT])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("size", [(60, 40), (7, 5)])
def test_native_pixels(syntax: str, planar: bool, size: tuple[int, int]) -> None:
    frames = np.stack([picture(*size), 255 - picture(*size)])
    data = dicom_file(frames, "RGB", syntax=syntax, planar=planar)
    for index in range(2):
        assert (decoded(data, index) == frames[index]).all()
    deep = frames.astype(np.uint16) * 257
    for index in range(2):
        assert (decoded(dicom_file(deep, "RGB", syntax=syntax, planar=planar), index) == frames[index]).all()


def test_big_endian_bytes_in_words() -> None:
    """8-bit pixels may be written as 16-bit words, of which big endian turns the bytes (PS3.5 A.3)."""
    data = bytearray(dicom_file(picture()[None], "RGB", syntax=BIG_ENDIAN))
    place = data.index(struct.pack(">HH", 0x7FE0, 0x0010))
    data[place + 4 : place + 6] = b"OW"
    data[place + 12 :] = np.frombuffer(bytes(data[place + 12 :]), "u2").byteswap().tobytes()
    assert (decoded(bytes(data)) == picture()).all()


def test_ybr() -> None:
    white = np.full((1, 4, 4, 3), (255, 128, 128), dtype=np.uint8)
    assert (decoded(dicom_file(white, "YBR_FULL")) == 255).all()
    ybr = np.asarray(Image.fromarray(picture()).convert("YCbCr"))
    assert np.abs(decoded(dicom_file(ybr[None], "YBR_FULL")) - picture()).max() <= 3
    # Y1 Y2 Cb Cr for each two pixels.
    pairs = np.stack([ybr[:, ::2, 0], ybr[:, 1::2, 0], ybr[:, ::2, 1], ybr[:, ::2, 2]], axis=-1)
    halved = dicom_file(ybr[None], "YBR_FULL_422", encoded=None)
    place = halved.index(struct.pack("<HH", 0x7FE0, 0x0010))
    data = halved[:place] + struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, pairs.size) + pairs.tobytes()
    assert np.abs(decoded(data) - picture()).mean() < 5


def test_gray_windows() -> None:
    values = np.array([[[0, 1000, 2000, 4095]]], dtype=np.uint16)

    def gray(colour: str, **tags: Any) -> list[int]:
        found: list[int] = decoded(dicom_file(values, colour, bits_stored=12, **tags))[0, :, 0].tolist()
        return found

    assert gray("MONOCHROME2") == [0, 62, 125, 255]
    assert gray("MONOCHROME1") == [255, 193, 130, 0]
    assert gray("MONOCHROME2", WindowCenter=1000.5, WindowWidth=2001) == [0, 128, 255, 255]
    rescaled = {"WindowCenter": [500.5, 1], "WindowWidth": [1001, 2], "RescaleSlope": 0.5, "RescaleIntercept": 0}
    assert gray("MONOCHROME2", **rescaled)[1] == 128
    assert gray("MONOCHROME2", RescaleSlope=-1, RescaleIntercept=0) == [255, 193, 130, 0]


def test_gray_of_few_bits_and_signed() -> None:
    nibbles = np.array([[[0, 5, 10, 15]]], dtype=np.uint8)
    assert decoded(dicom_file(nibbles, "MONOCHROME2", bits_stored=4))[0, :, 0].tolist() == [0, 85, 170, 255]
    signed = np.array([[[-1000, 0, 1000]]], dtype=np.int16)
    assert decoded(dicom_file(signed, "MONOCHROME2"))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(("bits", "syntax"), [(8, IMPLICIT), (16, IMPLICIT), (16, BIG_ENDIAN)])
def test_palette(bits: int, syntax: str) -> None:
    generator = np.random.default_rng(4)
    indices = generator.integers(0, 256, (1, 6, 8), dtype=np.uint8)
    table = generator.integers(0, 256, (200, 3), dtype=np.uint8)
    elements: dict[str, Any] = {}
    for channel, colour in enumerate(("Red", "Green", "Blue")):
        column = table[:, channel]
        words = (column.astype(np.uint16) << 8).astype(">u2" if syntax == BIG_ENDIAN else "<u2")
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [200, 10, bits]
        elements[f"{colour}PaletteColorLookupTableData"] = column.tobytes() if bits == 8 else words.tobytes()
    found = decoded(dicom_file(indices, "PALETTE COLOR", syntax=syntax, **elements))
    assert (found == table[np.clip(indices[0].astype(int) - 10, 0, 199)]).all()


def test_palette_that_is_missing() -> None:
    with pytest.raises(DataError, match="PALETTE COLOR without its palette"):
        decode_bytes(dicom_file(np.zeros((1, 4, 4), dtype=np.uint8), "PALETTE COLOR"), "p.dcm")


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("samples", [1, 3])
def test_run_lengths_against_pydicom(depth: int, samples: int) -> None:
    pixels = picture() if samples == 3 else picture()[..., 0]
    pixels = np.where(pixels > 100, pixels, 0).astype(np.uint8)  # runs
    values = pixels.astype(np.uint16) << 8 | 17 if depth == 16 else pixels
    colour = "RGB" if samples == 3 else "MONOCHROME2"
    runs = pydicom.pixels.encoders.RLELosslessEncoder.encode(
        values,
        rows=40,
        columns=60,
        samples_per_pixel=samples,
        bits_allocated=depth,
        bits_stored=depth,
        photometric_interpretation=colour,
        pixel_representation=0,
        number_of_frames=1,
        **({"planar_configuration": 0} if samples == 3 else {}),
    )
    data = dicom_file(values[None], colour, syntax=dicom_frames.RLE, encoded=encapsulated(runs))
    elements = read_elements(io.BytesIO(data))
    raw = dicom_frames.decode_frame(io.BytesIO(data), elements, 0, 1)
    assert raw.values.dtype == values.dtype
    assert (raw.values == values).all()
    assert (decoded(data) == decoded(dicom_file(values[None], colour))).all()
    for damaged in (runs[:-40], runs[:64] + b"\x81\0" * 9000, runs + bytes(10)):
        with pytest.raises(DataError, match="DICOM"):
            decode_bytes(dicom_file(values[None], colour, syntax=dicom_frames.RLE, encoded=encapsulated(damaged)), "a")


def saved(image_format: str, **options: Any) -> bytes:
    """The picture, encoded."""
    return bytes(originals.saved(Image.fromarray(picture()), image_format, **options))


@pytest.mark.parametrize("colour", ["YBR_FULL_422", "YBR_FULL", "RGB"])
def test_jpeg_baseline(colour: str) -> None:
    jpeg = saved("JPEG", quality=95, subsampling=0)
    frames = np.stack([picture()] * 2)
    data = dicom_file(frames, colour, syntax="1.2.840.10008.1.2.4.50", encoded=encapsulated(jpeg, jpeg))
    expected = np.asarray(Image.open(io.BytesIO(jpeg)), dtype=int)
    for index in range(2):
        assert np.abs(decoded(data, index) - expected).max() <= 3


@pytest.mark.parametrize(("syntax", "options"), [("90", {"mct": 0}), ("91", {"mct": 1, "irreversible": True})])
def test_jpeg_2000(syntax: str, options: dict[str, Any]) -> None:
    jpeg = saved("JPEG2000", no_jp2=True, **options)
    colour = "RGB" if syntax == "90" else "YBR_ICT"
    data = dicom_file(picture()[None], colour, syntax=f"1.2.840.10008.1.2.4.{syntax}", encoded=encapsulated(jpeg))
    assert np.abs(decoded(data) - picture()).max() <= (0 if syntax == "90" else 8)


def test_a_picture_inside_must_fit_and_be_whole() -> None:
    jpeg = saved("JPEG", quality=95)
    for inside, header in ((jpeg, picture(40, 60)), (jpeg[:-300] + b"\xff\xd9", picture()), (jpeg[:-300], picture())):
        data = dicom_file(header[None], "YBR_FULL", syntax="1.2.840.10008.1.2.4.50", encoded=encapsulated(inside))
        with pytest.raises(DataError, match="pixels cannot be read"):
            decode_bytes(data, "a.dcm")


@pytest.mark.parametrize(
    ("syntax", "said"),
    [("4.57", "JPEG Lossless"), ("4.80", "JPEG-LS"), ("4.102", "MPEG-4")],
)
def test_other_encodings_are_named(syntax: str, said: str) -> None:
    data = dicom_file(picture()[None], "RGB", syntax=f"1.2.840.10008.1.2.{syntax}", encoded=encapsulated(b"abcd"))
    with pytest.raises(DataError, match=said):
        decode_bytes(data, "a.dcm")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("1.2.840.10008.5.1.4.1.1.2", "CT Image Storage"),
        ("1.2.840.10008.5.1.4.1.1.88.11", "Basic Text SR"),
        ("1.2.840.10008.5.1.4.1.1.77.1.4.1", "Video Photographic"),
        ("1.2.3.4.5", "not one of the standard's"),
    ],
)
def test_other_objects_are_named(kind: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        decode_bytes(dicom_file(picture()[None], "RGB", sop_class=kind), "a.dcm")


@pytest.mark.parametrize("end", ["77.1.4", "77.1.7", "7", "7.4"])
def test_photographs_and_captures_are_read(end: str) -> None:
    data = dicom_file(picture()[None], "RGB", sop_class=f"1.2.840.10008.5.1.4.1.1.{end}")
    assert (decoded(data) == picture()).all()


def test_the_profile_is_applied() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    places = profile.index(b"rXYZ", 128), profile.index(b"gXYZ", 128)
    swapped = bytearray(profile)
    swapped[places[0] : places[0] + 4], swapped[places[1] : places[1] + 4] = b"gXYZ", b"rXYZ"
    named = bytes(swapped).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    named = named.replace(b"sRGB built-in", b"swap built-in")
    red = np.full((1, 8, 8, 3), (255, 0, 0), dtype=np.uint8)
    pixel = decoded(dicom_file(red, "RGB", ICCProfile=named))[4, 4]
    assert pixel[1] > 240 > 30 > pixel[0]


def test_damage() -> None:
    data = dicom_file(picture()[None], "RGB")
    for length in (140, 300, len(data) - 500, len(data) - 1):
        with pytest.raises(DataError, match="DICOM"):
            decode_bytes(data[:length], "cut.dcm")


@pytest.mark.parametrize(
    "elements",
    [
        {"Rows": 41},
        {"Columns": 30},
        {"Rows": None},
        {"NumberOfFrames": 2},
        {"NumberOfFrames": 2**31 - 1},
        {"BitsAllocated": 16},
        {"BitsStored": 9},
        {"BitsStored": 7},
        {"SamplesPerPixel": 1},
        {"PixelRepresentation": 1},
        {"PlanarConfiguration": 2},
        {"Rows": 0},
        {"PhotometricInterpretation": "YBR_PARTIAL_420"},
    ],
)
def test_headers_that_contradict_the_pixels(elements: dict[str, Any]) -> None:
    data = dicom_file(picture()[None], "RGB", **elements)
    with pytest.raises(DataError, match="DICOM"):
        decode_bytes(data, "a.dcm")


def test_elements_against_pydicom() -> None:
    for variant, (suffix, data) in originals.originals().items():
        if suffix != "dcm":
            continue
        found, dataset = read_elements(io.BytesIO(data)), pydicom.dcmread(io.BytesIO(data))
        assert found.texts["transfer_syntax"] == dataset.file_meta.TransferSyntaxUID, variant
        assert found.texts["sop_class"] == dataset.SOPClassUID, variant
        assert found.numbers["rows"] == dataset.Rows, variant
        assert found.numbers["columns"] == dataset.Columns, variant
        assert found.numbers["bits_stored"] == dataset.BitsStored, variant
        assert int(found.texts["number_of_frames"]) == dataset.NumberOfFrames, variant
        native = data[found.pixel_offset :][: found.pixel_length]
        assert native.startswith(dataset.PixelData[:1000]), variant


def test_names_of_patients_never_come_out(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    """The name stands in every element that carries text, also where codes and numbers belong, in damaged files too."""
    name = "Planted^Patientname"
    keywords = (
        "PatientName", "PatientID", "AccessionNumber", "Manufacturer", "ImageComments", "LossyImageCompression",
        "PerformingPhysicianName", "InstitutionName", "StudyID", "DeviceSerialNumber", "LensMake",
    )  # fmt: skip
    texts = dict.fromkeys(keywords, name)
    whole = dicom_file(picture()[None], "RGB", **texts)
    files = [whole]
    # Of even length, in place of codes and numbers.
    for old in (b"RGB ", b"1.2.840.10008.5.1.4.1.1.77.1.7", b"1.2.840.10008.1.2.1\0"):
        files.append(whole.replace(old, name.encode().ljust(len(old))[: len(old)]))
    for tag in ((0x0028, 0x0008), (0x0028, 0x1050), (0x0028, 0x1053), (0x0028, 0x0010)):
        place = whole.index(struct.pack("<HH", 0x7FE0, 0x0010))
        element = struct.pack("<HH2sH", *tag, b"IS", 20) + name.encode().ljust(20)
        gray = dicom_file(picture()[None, ..., 0], "MONOCHROME2")
        start = gray.index(struct.pack("<HH", 0x7FE0, 0x0010))
        files += [whole[:place] + element + whole[place:], gray[:start] + element + gray[start:]]
    random = np.random.default_rng(2)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[random.integers(132, 900)] = random.integers(256)
        damaged[random.integers(132, 900)] = random.integers(256)
        files.append(bytes(damaged))
    recwarn.clear()  # of writing such files
    caplog.set_level(logging.DEBUG)
    said, refused = "", 0
    for data in files:
        assert b"Planted" in data
        try:
            image = decode_bytes(data, "a.dcm")
            said += repr(image.info)
        except LentigoError as error:
            refused += 1
            said += f"{error!r} {error}"
    assert refused > 50
    captured = capfd.readouterr()
    said += caplog.text + captured.out + captured.err + "".join(str(warning.message) for warning in recwarn)
    for part in ("Planted", "Patientname", "lanted"):
        assert part not in said
