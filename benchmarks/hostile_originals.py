"""One drawn lesion in every format, variant and encoding that Lentigo reads: what `hostile_files.py` damages."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lentigo.data.images import MAX_IMAGE_PIXELS, MAX_PIXELS_OF
from lentigo.data.synthetic import draw_lesion

SIZE_PX = (96, 80)
PLANTED_NAME = "Planted^Patientname"
"""Stands in every DICOM file as the patient's name and must never come out."""

_JPEG, _PNG, _TIFF = "jpg", "png", "tif"
PILLOW_VARIANTS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "jpeg": (_JPEG, "RGB", "JPEG", {"quality": 90}),
    "jpeg-progressive": (_JPEG, "RGB", "JPEG", {"quality": 90, "progressive": True}),
    "jpeg-restarts": (_JPEG, "RGB", "JPEG", {"quality": 90, "restart_marker_blocks": 5}),
    "jpeg-gray": (_JPEG, "L", "JPEG", {"quality": 90}),
    "jpeg-cmyk": (_JPEG, "CMYK", "JPEG", {"quality": 90}),
    "png": (_PNG, "RGB", "PNG", {}),
    "png-alpha": (_PNG, "RGBA", "PNG", {}),
    "png-palette": (_PNG, "P", "PNG", {}),
    "webp": ("webp", "RGB", "WEBP", {"quality": 90}),
    "webp-lossless": ("webp", "RGB", "WEBP", {"lossless": True}),
    "tiff": (_TIFF, "RGB", "TIFF", {}),
    "tiff-lzw": (_TIFF, "RGB", "TIFF", {"compression": "tiff_lzw"}),
    "tiff-deflate": (_TIFF, "RGB", "TIFF", {"compression": "tiff_adobe_deflate"}),
    "tiff-jpeg": (_TIFF, "RGB", "TIFF", {"compression": "jpeg"}),
    "bmp": ("bmp", "RGB", "BMP", {}),
    "gif": ("gif", "P", "GIF", {}),
    "avif": ("avif", "RGB", "AVIF", {"speed": 10}),
}
_EXIF_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")
_DERMOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.7"


def lesion(size: tuple[int, int] = SIZE_PX) -> Image.Image:
    """The drawn picture."""
    return Image.fromarray(draw_lesion("mel", lesion_seed=7, size_px=max(size))).crop((0, 0, *size))


def originals() -> dict[str, tuple[str, bytes]]:
    """Variant -> (file name ending, bytes). HEIC and DICOM need the extras `heic` and `dicom`."""
    picture = lesion()
    found = {}
    for variant, (suffix, mode, image_format, options) in PILLOW_VARIANTS.items():
        exif = {"exif": _exif()} if image_format in _EXIF_FORMATS and "compression" not in options else {}
        found[variant] = (suffix, saved(_in_mode(picture, mode), image_format, **options, **exif))
    found["heic"] = ("heic", _heic(picture))
    return found | {variant: ("dcm", data) for variant, data in _dicom_variants(np.asarray(picture)).items()}


def _in_mode(picture: Image.Image, mode: str) -> Image.Image:
    if mode == "RGBA":
        picture = picture.copy()
        picture.putalpha(200)
        return picture
    return picture.quantize(64) if mode == "P" else picture.convert(mode)


def saved(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    exif.get_ifd(0x8769)[0x9003] = "2026:01:01 00:00:00"
    return exif.tobytes()


def _heic(picture: Image.Image) -> bytes:
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.from_pillow(picture).save(buffer, quality=80)
    return buffer.getvalue()


def _dicom_variants(pixels: NDArray[np.uint8]) -> dict[str, bytes]:
    from pydicom.encaps import encapsulate
    from pydicom.pixels.encoders import RLELosslessEncoder
    from pydicom.pixels.processing import convert_color_space

    frames, gray = pixels[None], pixels[..., 0].astype(np.uint16) << 4
    jpeg = saved(Image.fromarray(pixels), "JPEG", quality=90)
    described = {"rows": pixels.shape[0], "columns": pixels.shape[1], "bits_allocated": 8, "bits_stored": 8}
    runs = RLELosslessEncoder.encode(
        pixels, samples_per_pixel=3, photometric_interpretation="RGB", pixel_representation=0, number_of_frames=1,
        planar_configuration=0, **described,
    )  # fmt: skip
    return {
        "dicom": dicom_file(frames, "RGB"),
        "dicom-big-endian": dicom_file(frames, "RGB", syntax="1.2.840.10008.1.2.2"),
        "dicom-implicit": dicom_file(frames, "RGB", syntax="1.2.840.10008.1.2"),
        "dicom-gray16": dicom_file(gray[None], "MONOCHROME2", bits_stored=12),
        "dicom-ybr": dicom_file(convert_color_space(pixels, "RGB", "YBR_FULL")[None], "YBR_FULL"),
        "dicom-palette": dicom_file(pixels[None, ..., 0], "PALETTE COLOR", **_palette()),
        "dicom-frames": dicom_file(np.stack([pixels, 255 - pixels, pixels]), "RGB"),
        "dicom-rle": dicom_file(frames, "RGB", syntax="1.2.840.10008.1.2.5", encoded=encapsulate([runs])),
        "dicom-jpeg": dicom_file(
            frames, "YBR_FULL_422", syntax="1.2.840.10008.1.2.4.50", encoded=encapsulate([jpeg])
        ),
        "dicom-jpeg2000": dicom_file(
            frames, "RGB", syntax="1.2.840.10008.1.2.4.90",
            encoded=encapsulate([saved(Image.fromarray(pixels), "JPEG2000", mct=0, no_jp2=True)]),
        ),
    }  # fmt: skip


def _palette() -> dict[str, Any]:
    """Gray, in 16 bits."""
    return {
        f"{colour}PaletteColorLookupTable{part}": value
        for colour in ("Red", "Green", "Blue")
        for part, value in (("Descriptor", [256, 0, 16]), ("Data", (np.arange(256, dtype="<u2") << 8).tobytes()))
    }


def dicom_file(
    frames: NDArray[Any],
    colour: str,
    *,
    syntax: str = "1.2.840.10008.1.2.1",
    bits_stored: int = 0,
    encoded: bytes | None = None,
    sop_class: str = _DERMOSCOPIC,
    planar: bool = False,
    **elements: Any,
) -> bytes:
    """A DICOM file of frames (F, H, W) or (F, H, W, 3), with names and ids of a patient in it.

    `encoded`: the compressed pixel data with their items. `elements`: further ones by keyword; None takes one away.
    """
    from pydicom import Dataset, dcmwrite
    from pydicom.dataset import FileMetaDataset

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3.4"
    dataset.PatientName = dataset.ReferringPhysicianName = PLANTED_NAME
    dataset.PatientID = dataset.StudyDescription = dataset.PatientComments = PLANTED_NAME
    item = Dataset()
    item.PersonName = PLANTED_NAME
    dataset.ReferencedStudySequence = [item]
    bits = frames.dtype.itemsize * 8
    dataset.NumberOfFrames = len(frames)
    dataset.Rows, dataset.Columns = frames.shape[1:3]
    dataset.SamplesPerPixel = 3 if frames.ndim == 4 else 1
    dataset.PhotometricInterpretation = colour
    if frames.ndim == 4:
        dataset.PlanarConfiguration = int(planar)
    stored = bits_stored or bits
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, stored, stored - 1
    dataset.PixelRepresentation = int(frames.dtype.kind == "i")
    big = syntax == "1.2.840.10008.1.2.2"
    for name, value in elements.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    ordered = np.moveaxis(frames, -1, 1) if planar else frames
    data = (
        encoded
        if encoded is not None
        else np.ascontiguousarray(ordered.astype(frames.dtype.newbyteorder(">" if big else "<"))).tobytes()
    )
    dataset.add_new(0x7FE00010, "OW" if bits == 16 else "OB", data + b"\0" * (len(data) % 2))
    dataset["PixelData"].is_undefined_length = encoded is not None
    buffer = io.BytesIO()
    dcmwrite(
        buffer, dataset, enforce_file_format=True, implicit_vr=syntax == "1.2.840.10008.1.2", little_endian=not big
    )
    return buffer.getvalue()


def large_files() -> Iterator[tuple[str, str, bytes]]:
    """(variant, file name ending, bytes) of a smooth picture just within each limit of size, one after the other."""
    exif = {"exif": _exif()}
    for variant, kind, suffix, mode, image_format, options in (
        ("jpeg, turned", "JPEG", _JPEG, "RGB", "JPEG", exif),
        (
            "jpeg, progressive, turned",
            "JPEG of several scans",
            _JPEG,
            "RGB",
            "JPEG",
            {"progressive": True, "subsampling": 0, **exif},
        ),
        ("jpeg, CMYK, turned", "JPEG", _JPEG, "CMYK", "JPEG", exif),
        ("png, alpha, turned", "PNG", _PNG, "RGBA", "PNG", {"compress_level": 1, **exif}),
        ("png, 16 bits, turned", "PNG", _PNG, "I;16", "PNG", {"compress_level": 1, **exif}),
        ("tiff, one strip", "TIFF", _TIFF, "RGB", "TIFF", {"compression": "tiff_lzw", "strip_size": 2**30}),
        ("gif", "GIF", "gif", "P", "GIF", {}),
        ("webp, lossless, alpha", "WEBP", "webp", "RGBA", "WEBP", {"lossless": True, "method": 0}),
        ("avif", "AVIF", "avif", "RGB", "AVIF", {"speed": 10, "subsampling": "4:4:4"}),
    ):
        image = _smooth(MAX_PIXELS_OF.get(kind, MAX_IMAGE_PIXELS), mode)
        yield variant, suffix, saved(image, image_format, **options)
    yield "heic", "heic", _heic(_smooth(MAX_PIXELS_OF["HEIF"], "RGB"))
    pixels = np.asarray(_smooth(MAX_PIXELS_OF["DICOM"], "RGB"))[None]
    yield "dicom, YBR", "dcm", dicom_file(pixels, "YBR_FULL")
    yield "dicom, palette", "dcm", dicom_file(pixels[..., 0], "PALETTE COLOR", **_palette())
    yield "dicom, 16-bit colours", "dcm", dicom_file(pixels.astype(np.uint16) << 8, "RGB")
    yield "dicom, 16-bit gray", "dcm", dicom_file(pixels[..., 0].astype(np.uint16), "MONOCHROME1")
    del pixels
    for variant, kind, image_format, syntax, options in (
        ("dicom, jpeg", "DICOM", "JPEG", "50", {}),
        (
            "dicom, jpeg 2000",
            "JPEG 2000",
            "JPEG2000",
            "91",
            {"irreversible": True, "no_jp2": True, "quality_layers": [40]},
        ),
    ):
        image = _smooth(MAX_PIXELS_OF[kind], "RGB")
        encoded = encapsulate_one(saved(image, image_format, **options))
        colour = "YBR_FULL_422" if syntax == "50" else "YBR_ICT"
        frame = np.broadcast_to(np.uint8(0), (1, image.height, image.width, 3))
        yield variant, "dcm", dicom_file(frame, colour, syntax=f"1.2.840.10008.1.2.4.{syntax}", encoded=encoded)


def encapsulate_one(data: bytes) -> bytes:
    """One compressed frame as DICOM pixel data."""
    from pydicom.encaps import encapsulate

    encapsulated: bytes = encapsulate([data])
    return encapsulated


def _smooth(pixels: int, mode: str) -> Image.Image:
    """A square picture of at most so many pixels."""
    side = math.isqrt(pixels)
    small = _in_mode(lesion(), "L" if mode == "I;16" else mode)
    large = small.resize((side, side), Image.Resampling.NEAREST if mode == "P" else Image.Resampling.BICUBIC)
    return Image.fromarray(np.asarray(large).astype(np.uint16) << 8) if mode == "I;16" else large
