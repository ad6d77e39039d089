"""One DICOM photograph (first frame) -> 8-bit pixels. Needs the extra `dicom`."""

from __future__ import annotations

from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lentigo.core.errors import DataError, MissingExtraError

HEADER_BYTES = 132


def is_dicom(head: bytes) -> bool:
    """Whether the first `HEADER_BYTES` of a file are a DICOM preamble."""
    return head[128:HEADER_BYTES] == b"DICM"


def dicom_size(stream: IO[bytes], name: str) -> tuple[int, int]:
    """(width, height) in pixels, without reading the pixels."""
    dataset = _read(stream, name, stop_before_pixels=True)
    return int(dataset.Columns), int(dataset.Rows)


def read_dicom(stream: IO[bytes], name: str) -> NDArray[np.uint8]:
    """The first frame: uint8, (H, W, 3) RGB or (H, W) grey.

    Grey values go through the rescale and the first window of the file; without a window, through the range
    of the frame (16 bits) or unchanged (8 bits). MONOCHROME1 is inverted, YBR becomes RGB.

    Raises:
        DataError: where the file is damaged, or palette-coloured.
        MissingExtraError: without pydicom.
    """
    dataset = _read(stream, name, stop_before_pixels=False)
    colour = str(dataset.PhotometricInterpretation)
    if not colour.startswith(("MONOCHROME", "RGB", "YBR")):
        raise DataError(
            f"{name}: expected a DICOM image in MONOCHROME1, MONOCHROME2, RGB or YBR; found {colour}",
            "Convert the image to JPEG or PNG.",
        )
    from pydicom.pixels import pixel_array

    try:
        frame: NDArray[Any] = pixel_array(dataset, index=0)
    except Exception as error:  # the decoders raise many kinds, RuntimeError and struct.error among them
        raise DataError(f"{name} is a DICOM file whose pixels cannot be read: {error}", _REMEDY) from None
    if not colour.startswith("MONOCHROME"):
        return (frame >> max(int(dataset.BitsStored) - 8, 0)).astype(np.uint8)
    grey = _apply_window(frame, dataset)
    return 255 - grey if colour == "MONOCHROME1" else grey


_NEEDED_TAGS = ("Rows", "Columns", "PhotometricInterpretation", "BitsStored")
_REMEDY = "Export the image again, or convert it to JPEG or PNG."


def _read(stream: IO[bytes], name: str, *, stop_before_pixels: bool) -> Any:
    try:
        from pydicom import dcmread
    except ImportError:
        raise MissingExtraError("pydicom", "dicom") from None
    try:
        dataset = dcmread(stream, stop_before_pixels=stop_before_pixels)
    except Exception as error:  # as above: a damaged file can raise anything
        raise DataError(f"{name} is a damaged DICOM file: {error}", _REMEDY) from None
    missing = [tag for tag in _NEEDED_TAGS if tag not in dataset]
    if missing:
        raise DataError(f"{name} is a DICOM file without an image (no {', '.join(missing)})", _REMEDY)
    return dataset


def _apply_window(frame: NDArray[Any], dataset: Any) -> NDArray[np.uint8]:
    """Linear window to 0..255, DICOM PS3.3 C.11.2.1.2."""
    slope, intercept = dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", 0)
    values = frame.astype(np.float64) * float(slope) + float(intercept)
    center, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    if center is not None and width is not None and width > 1:
        low, high = center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    elif int(dataset.BitsStored) <= 8:
        low, high = 0.0, 255.0
    else:
        low, high = values.min(), values.max()
    scaled = (values - low) / max(high - low, 1e-9)
    return np.asarray(np.rint(np.clip(scaled, 0, 1) * 255), dtype=np.uint8)


def _first(value: Any) -> float | None:
    """Window tags hold one value or several."""
    if value is None or value == "":
        return None
    return float(value[0]) if hasattr(value, "__getitem__") and not isinstance(value, str) else float(value)
