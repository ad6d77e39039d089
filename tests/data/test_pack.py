"""The Parquet pack: round trips, determinism, refusals, and Hugging Face's description of the columns."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lentigo.core.errors import ConfigError, DataError, MissingExtraError
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data import pack
from lentigo.data.catalog import Catalog, Row
from lentigo.data.images import image_size, load_image, read_bytes
from lentigo.data.pack import read_pack, write_pack
from lentigo.data.sources import load_catalog, scan_source

parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra `train`")


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Ten images of 60x40 in single colours, with every field filled somewhere."""
    rows = []
    for number in range(10):
        path = tmp_path / "images" / f"i{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (60, 40), (25 * number, 100, 255 - 25 * number)).save(path)
        rows.append(
            Row(
                image_id=f"i{number}",
                path=path,
                label=number % 7,
                lesion_id=f"L{number // 2}",
                has_lesion_id=number > 1,
                patient_id=f"P{number}",
                age_years=None if number == 0 else 10.0 * number,
                sex="female" if number % 2 else "",
                site="rücken",
                dx_type="synthetic",
                primary=number % 2 == 0,
                split=("train", "val", "test", "extra", "")[number // 2],
            )
        )
    return Catalog(tuple(rows), "small", synthetic=True)


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "ROWS_PER_GROUP", 4)


@pytest.mark.usefixtures("small_groups")
def test_round_trip(catalog: Catalog, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    path = write_pack(catalog, tmp_path / "a.parquet", size_px=32, progress=lambda *counts: calls.append(counts))
    assert calls == [(done, 10) for done in range(1, 11)]
    packed = load_catalog(path)
    assert (packed.name, packed.synthetic, packed.sha256) == ("small", True, catalog.sha256)
    for index, (row, original) in enumerate(zip(packed, catalog, strict=True)):
        assert row.member == f"row:{index}"
        assert row.sha256 == hashlib.sha256(read_bytes(row)).hexdigest()
        same = {"path": path, "member": row.member, "sha256": row.sha256, "width": 32, "height": 32}
        assert row == replace(original, **same)
    for index in (9, 0, 4, 3, 8):  # across row groups, out of order
        row = packed.rows[index]
        image = load_image(row.path, row.member)
        assert image.size == image_size(row.path, row.member) == (32, 32)
        color = np.array([25 * index, 100, 255 - 25 * index])
        assert np.abs(np.asarray(image, dtype=int) - color).max() <= 3
    assert scan_source(path)[1] == []


def test_catalog_csv_of_a_pack(catalog: Catalog, tmp_path: Path) -> None:
    packed = load_catalog(write_pack(catalog, tmp_path / "a.parquet", size_px=16))
    assert load_catalog(packed.to_csv(tmp_path / "split.csv")).rows == packed.rows


def test_packing_a_pack(catalog: Catalog, tmp_path: Path) -> None:
    first = load_catalog(write_pack(catalog, tmp_path / "a.parquet", size_px=32))
    second = load_catalog(write_pack(first, tmp_path / "b.parquet", size_px=16))
    assert second.sha256 == catalog.sha256
    assert load_image(second.rows[3].path, second.rows[3].member).size == (16, 16)


def test_shorter_side_keeps_the_aspect(catalog: Catalog, tmp_path: Path) -> None:
    packed = load_catalog(write_pack(catalog, tmp_path / "a.parquet", size_px=20, resize_rule="shorter_side"))
    assert {(row.width, row.height) for row in packed} == {(30, 20)}
    assert load_image(packed.rows[0].path, "row:0").size == (30, 20)


@pytest.mark.usefixtures("small_groups")
def test_same_input_same_bytes(catalog: Catalog, tmp_path: Path) -> None:
    paths = [write_pack(catalog, tmp_path / name, size_px=32) for name in ("a.parquet", "b.parquet")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_existing_files_are_kept(catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_text("precious")
    with pytest.raises(DataError, match="exists already") as caught:
        write_pack(catalog, path, size_px=16)
    assert "--force" in caught.value.remedy
    assert path.read_text() == "precious"
    assert len(load_catalog(write_pack(catalog, path, size_px=16, force=True))) == 10


@pytest.mark.usefixtures("small_groups")
def test_all_unreadable_images_are_named_and_nothing_is_written(catalog: Catalog, tmp_path: Path) -> None:
    catalog.rows[1].path.unlink()
    catalog.rows[5].path.write_bytes(b"")
    catalog.rows[9].path.write_text("text")
    folder = tmp_path / "out"
    with pytest.raises(DataError, match="3 of 10 images") as caught:
        write_pack(catalog, folder / "a.parquet", size_px=16)
    assert all(f"i{number}.png" in caught.value.message for number in (1, 5, 9))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.zip", {"size_px": 16}),
        ("a.parquet", {"size_px": 0}),
        ("a.parquet", {"size_px": 16, "jpeg_quality": 0}),
        ("a.parquet", {"size_px": 16, "resize_rule": "stretch"}),
    ],
)
def test_wrong_options(name: str, options: dict[str, object], catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        write_pack(catalog, tmp_path / name, **options)  # type: ignore[arg-type]


def test_an_empty_catalog_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        write_pack(Catalog(()), tmp_path / "a.parquet", size_px=16)


def test_metadata_for_hugging_face_and_for_lentigo(catalog: Catalog, tmp_path: Path) -> None:
    schema = parquet.read_schema(write_pack(catalog, tmp_path / "a.parquet", size_px=16, jpeg_quality=80))
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == schema.names
    assert features["image"] == {"_type": "Image"}
    assert features["label_id"]["names"] == list(CLASS_CODES)
    image = schema.field("image").type
    assert [(field.name, str(field.type)) for field in image] == [("bytes", "binary"), ("path", "string")]
    about = json.loads(schema.metadata[b"lentigo"])
    assert (about["source"], about["synthetic"], about["size_px"], about["jpeg_quality"]) == (
        "small",
        True,
        16,
        80,
    )
    assert about["catalog_sha256"] == catalog.sha256


def test_no_folder_of_the_author_is_in_the_pack(catalog: Catalog, tmp_path: Path) -> None:
    path = write_pack(catalog, tmp_path / "a.parquet", size_px=16)
    assert str(tmp_path).encode() not in path.read_bytes()
    assert parquet.read_table(path, columns=["source"])["source"][3].as_py() == "i3.png"


def rewritten(path: Path, **columns: list[object]) -> Path:
    """The pack with other values in some columns, as if edited by another program."""
    table = parquet.read_table(path)
    for name, values in columns.items():
        position = table.schema.get_field_index(name)
        import pyarrow

        table = table.set_column(
            position, table.schema.field(name), pyarrow.array(values, table.schema.field(name).type)
        )
    parquet.write_table(table, path)
    return path


def test_edited_and_foreign_files_are_refused(catalog: Catalog, tmp_path: Path) -> None:
    path = write_pack(catalog, tmp_path / "a.parquet", size_px=16)
    with pytest.raises(DataError, match="not those that were packed"):
        read_pack(rewritten(path, split=["train"] * 10))
    parquet.write_table(parquet.read_table(path).drop_columns(["split"]), path)
    with pytest.raises(DataError, match="damaged"):
        read_pack(path)
    parquet.write_table(parquet.read_table(path).replace_schema_metadata(None), path)
    with pytest.raises(DataError, match="not a Lentigo pack"):
        read_pack(path)
    parquet.write_table(parquet.read_table(path).drop_columns(["image"]), path)
    with pytest.raises(DataError, match="no column `image`"):
        load_image(path, "row:0")
    with pytest.raises(DataError, match="no file at"):
        read_pack(tmp_path / "absent.parquet")


@pytest.mark.parametrize("member", ["row:10", "row:-1", "row:", "row:1.5"])
def test_rows_that_do_not_exist(member: str, catalog: Catalog, tmp_path: Path) -> None:
    path = write_pack(catalog, tmp_path / "a.parquet", size_px=16)
    with pytest.raises(DataError, match="holds no image"):
        load_image(path, member)


def test_damaged_pages_are_data_errors(catalog: Catalog, tmp_path: Path) -> None:
    path = write_pack(catalog, tmp_path / "a.parquet", size_px=16)
    data = bytearray(path.read_bytes())
    data[4:600] = b"\xff" * 596
    path.write_bytes(bytes(data))
    with pytest.raises(DataError):
        load_image(path, "row:0")


def test_without_pyarrow(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pack(catalog, tmp_path / "a.parquet", size_px=16)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    for call in (lambda: write_pack(catalog, tmp_path / "b.parquet", size_px=16), lambda: load_catalog(path)):
        with pytest.raises(MissingExtraError, match="pyarrow"):
            call()
