"""A data set in one Parquet file: images resized once, every catalogue column beside them.

Hugging Face `datasets` reads the file as it is (`load_dataset("parquet", data_files=...)`).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

import lentigo
from lentigo.core.errors import ConfigError, DataError, MissingExtraError
from lentigo.core.files import write_atomic
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.catalog import Catalog, Row
from lentigo.data.containers import open_parquet
from lentigo.data.images import load_image

ResizeRule = Literal["squash", "shorter_side"]

ROWS_PER_GROUP = 256
"""Rows encoded before they are written: about 5 MB of memory at 224 px, and of reading per random access."""
FORMAT_VERSION = 1
_METADATA_KEY = b"lentigo"
_REMEDY = "Write the pack again with `lentigo data pack`."


@dataclass(frozen=True)
class _Encoded:
    jpeg: bytes
    width: int
    height: int


def write_pack(
    catalog: Catalog,
    path: Path,
    *,
    size_px: int,
    jpeg_quality: int = 92,
    resize_rule: ResizeRule = "squash",
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Resize every image, encode it as JPEG and write one Parquet file; the same input gives the same bytes.

    `squash` makes a square of `size_px`; `shorter_side` keeps the aspect ratio. Width, height and sha256 of
    the written rows are those of the packed image; `source` keeps the name of the original.
    `progress(done, total)` is called after every image.

    Raises:
        DataError: where `path` exists and `force` is false, or images cannot be read (all of them named,
            nothing written).
        ConfigError: on a size, quality, rule or file ending out of range.
        MissingExtraError: without pyarrow.
    """
    _check_options(path, size_px, jpeg_quality, resize_rule)
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "train") from None
    if path.exists() and not force:
        raise DataError(f"{path} exists already", "Choose another name, or replace it with --force.")
    if not len(catalog):
        raise DataError(f"the catalogue {catalog.name!r} has no rows to pack", "Check the filter or split.")
    schema = _schema(pa, catalog, size_px, jpeg_quality, resize_rule)
    # JPEG does not compress further; dictionaries and min/max of it would only double the file.
    plain = [name for name in schema.names if name != "image"]
    failures: list[DataError] = []

    def write(temporary: Path) -> None:
        with parquet.ParquetWriter(
            temporary, schema, compression="none", use_dictionary=plain, write_statistics=plain
        ) as writer:
            groups = _encode_groups(catalog, size_px, jpeg_quality, resize_rule, failures, progress)
            for rows, images in groups:
                if not failures:
                    table = pa.Table.from_pydict(_columns(rows, images), schema=schema)
                    writer.write_table(table, row_group_size=ROWS_PER_GROUP)
        if failures:
            raise DataError(
                f"{len(failures)} of {len(catalog)} images cannot be read, nothing was written:\n  "
                + "\n  ".join(failure.message for failure in failures),
                "Restore or remove these images; `lentigo data check` shows all problems of a data set.",
            )

    return write_atomic(path, write)


def _check_options(path: Path, size_px: int, jpeg_quality: int, resize_rule: str) -> None:
    if path.suffix.lower() != ".parquet":
        raise ConfigError(f"a pack is a .parquet file; found {path.name!r}", f"Use {path.stem}.parquet.")
    if not 16 <= size_px <= 4096:
        raise ConfigError(f"size_px must be 16 to 4096; found {size_px}", "224 suits most networks.")
    if not 1 <= jpeg_quality <= 100:
        raise ConfigError(f"jpeg_quality must be 1 to 100; found {jpeg_quality}", "92 is the default.")
    if resize_rule not in ("squash", "shorter_side"):
        raise ConfigError(f"resize_rule must be squash or shorter_side; found {resize_rule!r}", "Use squash.")


def _encode_groups(
    catalog: Catalog,
    size_px: int,
    jpeg_quality: int,
    resize_rule: ResizeRule,
    failures: list[DataError],
    progress: Callable[[int, int], None],
) -> Iterator[tuple[tuple[Row, ...], list[_Encoded]]]:
    """Groups of rows with their images; rows that fail go to `failures`, and the groups then are short."""

    def encode(row: Row) -> _Encoded | DataError:
        try:
            return _encode(load_image(row.path, row.member), size_px, jpeg_quality, resize_rule)
        except DataError as error:
            return error

    done = 0
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(0, len(catalog), ROWS_PER_GROUP):
            rows = catalog.rows[start : start + ROWS_PER_GROUP]
            images: list[_Encoded] = []
            for result in threads.map(encode, rows):
                if isinstance(result, DataError):
                    failures.append(result)
                else:
                    images.append(result)
                done += 1
                progress(done, len(catalog))
            yield rows, images


def _encode(image: Image.Image, size_px: int, jpeg_quality: int, resize_rule: ResizeRule) -> _Encoded:
    size = (size_px, size_px)
    if resize_rule == "shorter_side":
        scale = size_px / min(image.size)
        size = (max(size_px, round(image.width * scale)), max(size_px, round(image.height * scale)))
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    # Full colour resolution: blue-grey veils and red vessels are fine, coloured structures.
    image.save(buffer, "JPEG", quality=jpeg_quality, subsampling=0)
    return _Encoded(buffer.getvalue(), *size)


def _columns(rows: tuple[Row, ...], images: list[_Encoded]) -> dict[str, list[Any]]:
    return {
        "image": [
            {"bytes": image.jpeg, "path": f"{row.image_id}.jpg"} for row, image in zip(rows, images, strict=True)
        ],
        "image_id": [row.image_id for row in rows],
        "label": [CLASS_CODES[row.label] for row in rows],
        "label_id": [row.label for row in rows],
        "lesion_id": [row.lesion_id for row in rows],
        "has_lesion_id": [row.has_lesion_id for row in rows],
        "patient_id": [row.patient_id for row in rows],
        "group_id": [row.group_id for row in rows],
        "age_years": [row.age_years for row in rows],
        "sex": [row.sex for row in rows],
        "site": [row.site for row in rows],
        "dx_type": [row.dx_type for row in rows],
        "primary": [row.primary for row in rows],
        "split": [row.split for row in rows],
        "sha256": [hashlib.sha256(image.jpeg).hexdigest() for image in images],
        "width": [image.width for image in images],
        "height": [image.height for image in images],
        "source": [f"{row.path.name}#{row.member}" if row.member else row.path.name for row in rows],
    }


_FEATURES: dict[str, dict[str, Any]] = {
    "image": {"_type": "Image"},
    **{name: {"dtype": "string", "_type": "Value"} for name in ("image_id", "label")},
    "label_id": {"names": list(CLASS_CODES), "_type": "ClassLabel"},
    "lesion_id": {"dtype": "string", "_type": "Value"},
    "has_lesion_id": {"dtype": "bool", "_type": "Value"},
    "patient_id": {"dtype": "string", "_type": "Value"},
    "group_id": {"dtype": "string", "_type": "Value"},
    "age_years": {"dtype": "float64", "_type": "Value"},
    **{name: {"dtype": "string", "_type": "Value"} for name in ("sex", "site", "dx_type")},
    "primary": {"dtype": "bool", "_type": "Value"},
    **{name: {"dtype": "string", "_type": "Value"} for name in ("split", "sha256")},
    **{name: {"dtype": "int32", "_type": "Value"} for name in ("width", "height")},
    "source": {"dtype": "string", "_type": "Value"},
}
"""Columns in Hugging Face's notation; the Arrow types follow from it."""


def _schema(pa: Any, catalog: Catalog, size_px: int, jpeg_quality: int, resize_rule: str) -> Any:
    types = {"string": pa.string(), "bool": pa.bool_(), "float64": pa.float64(), "int32": pa.int32()}
    fields = []
    for name, feature in _FEATURES.items():
        if feature["_type"] == "Image":
            fields.append(pa.field(name, pa.struct([("bytes", pa.binary()), ("path", pa.string())])))
        else:
            fields.append(pa.field(name, types.get(feature.get("dtype", ""), pa.int64())))
    about = {
        "format": FORMAT_VERSION,
        "lentigo": lentigo.__version__,
        "source": catalog.name,
        "synthetic": catalog.synthetic,
        "images": len(catalog),
        "size_px": size_px,
        "resize_rule": resize_rule,
        "jpeg_quality": jpeg_quality,
        "catalog_sha256": catalog.sha256,
    }
    return pa.schema(
        fields,
        metadata={
            "huggingface": json.dumps({"info": {"features": _FEATURES}}),
            _METADATA_KEY: json.dumps(about, ensure_ascii=False),
        },
    )


def read_pack(path: Path) -> Catalog:
    """The catalogue of a pack; rows address their images as member "row:i", and no image is read.

    Raises:
        DataError: where the file is damaged, not a pack, or its rows are not those it was written with.
        MissingExtraError: without pyarrow.
    """
    file = open_parquet(path)
    about = _read_about(path, file.schema_arrow.metadata or {})
    names = [name for name in _FEATURES if name not in ("image", "label", "source")]
    missing = set(names) - set(file.schema_arrow.names)  # pyarrow would leave them out without a word
    if missing:
        raise DataError(f"{path} is a damaged Lentigo pack: no columns {', '.join(sorted(missing))}", _REMEDY)
    try:
        records = file.read(columns=names, use_threads=False).to_pylist()
        rows = tuple(
            Row(path=path, member=f"row:{index}", label=record.pop("label_id"), **record)
            for index, record in enumerate(records)
        )
        catalog = Catalog(rows, about["source"], about["synthetic"])
        digest = catalog.sha256
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is a damaged Lentigo pack: {error}", _REMEDY) from None
    if digest != about.get("catalog_sha256"):
        raise DataError(f"{path}: ids, lesions, labels or splits are not those that were packed", _REMEDY)
    return catalog


def _read_about(path: Path, metadata: dict[bytes, bytes]) -> dict[str, Any]:
    if _METADATA_KEY not in metadata:
        raise DataError(f"{path} is a Parquet file, but not a Lentigo pack", _REMEDY)
    try:
        about: dict[str, Any] = dict(json.loads(metadata[_METADATA_KEY]))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is a damaged Lentigo pack: {error}", _REMEDY) from None
    if about.get("format") != FORMAT_VERSION:
        raise DataError(
            f"{path} has the pack format {about.get('format')}; this version reads {FORMAT_VERSION}", _REMEDY
        )
    return about
