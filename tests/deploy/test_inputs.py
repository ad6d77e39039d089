"""From arguments to images: every kind of container, each image once, in order, nothing read that need not be."""

from __future__ import annotations

import glob
import io
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lentigo.core.errors import ConfigError, DataError
from lentigo.data.catalog import Catalog
from lentigo.data.pack import write_pack
from lentigo.deploy.archives import MAX_ENTRY_BYTES, read_entry
from lentigo.deploy.classifier import Classifier
from lentigo.deploy.inputs import Item, find_items, printable


def picture(seed: int, size: int = 40) -> Image.Image:
    """Noise, each seed its own."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def png(seed: int) -> bytes:
    """The bytes of `picture` as PNG."""
    buffer = io.BytesIO()
    picture(seed).save(buffer, "PNG")
    return buffer.getvalue()


def names(items: tuple[Item, ...]) -> list[str]:
    return [item.name for item in items]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """images/ with two pictures, one below, and what is to be passed over; the working folder holds it."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "images"
    (root / "below").mkdir(parents=True)
    (root / ".cache").mkdir()
    for seed, place in enumerate(("b.png", "a.JPG", "below/ä c.png", ".hidden.png", ".cache/d.png")):
        picture(seed).save(root / place)
    (root / "readme.txt").write_text("no image")
    (root / "notes").write_text("no image either")
    return root


def test_a_folder_is_read_with_all_below_and_sorted(folder: Path) -> None:
    found = find_items(["images"])
    assert names(found) == ["images/a.JPG", "images/b.png", "images/below/ä c.png"]
    assert [item.image_id for item in found] == ["a", "b", "ä c"]


def test_an_image_is_there_once_however_often_it_is_named(folder: Path) -> None:
    given = ["images/b.png", "images", "images/*.png", str(folder / "b.png"), "images/below/../b.png"]
    assert names(find_items(given)) == ["images/b.png", "images/a.JPG", "images/below/ä c.png"]


def test_patterns_take_images_and_folders_alone(folder: Path) -> None:
    assert names(find_items(["images/*"])) == ["images/a.JPG", "images/b.png", "images/below/ä c.png"]
    assert names(find_items(["images/**/*.png"])) == ["images/b.png", "images/below/ä c.png"]


def test_a_named_file_is_taken_whatever_its_ending(folder: Path) -> None:
    assert names(find_items(["images/notes"])) == ["images/notes"], "it fails when it is read"


def test_a_file_with_the_letters_of_a_pattern_is_that_file(folder: Path) -> None:
    picture(1).save(folder / "x[1].png")
    assert names(find_items(["images/x[1].png"])) == ["images/x[1].png"]


def test_links_in_a_circle_end(folder: Path) -> None:
    (folder / "below" / "up").symlink_to(folder, target_is_directory=True)
    (folder / "below" / "self").symlink_to(".", target_is_directory=True)
    (folder / "gone.png").symlink_to("nowhere.png")
    assert names(find_items(["images"])) == ["images/a.JPG", "images/b.png", "images/below/ä c.png"]


@pytest.mark.parametrize("pattern", ["loop/**/*.png", "loop/**", "loop/**/*", "**/*.png", "loop/**/**/*.png", "*/**/"])
def test_patterns_end_where_links_lead_in_a_circle(folder: Path, pattern: str) -> None:
    loop = folder.parent / "loop"
    (loop / "below").mkdir(parents=True)
    for place in ("l", "m", "below/up"):
        (loop / place).symlink_to(loop, target_is_directory=True)
    for place in ("below/a.png", "x.png"):
        picture(1).save(loop / place)
    found = [item.path.resolve() for item in find_items([pattern])]
    assert sorted(path for path in found if path.is_relative_to(loop)) == [loop / "below" / "a.png", loop / "x.png"]


def test_links_that_a_pattern_names_are_followed(folder: Path) -> None:
    (folder / "below" / "up").symlink_to(folder, target_is_directory=True)
    (folder / "same").symlink_to("below", target_is_directory=True)
    (folder / "link.png").symlink_to("b.png")
    assert names(find_items(["images/**/up/*.png"])) == ["images/below/up/b.png", "images/below/up/link.png"]
    assert names(find_items(["images/**/same/*.png"])) == ["images/same/ä c.png"]
    once = ["images/b.png", "images/below/ä c.png", "images/link.png"]
    assert names(find_items(["images/**/*.png"])) == once, "a folder is read once; a link to a file has its own name"


@pytest.mark.parametrize(
    "pattern",
    ["images/**", "**/*.png", "./**/*.png", "images/**/", "i*/**", "**/.hidden.png", "images/**/[!b]*.*", "**"],
)
def test_patterns_without_links_find_what_glob_finds(folder: Path, pattern: str) -> None:
    (folder.parent / "images-2").mkdir()
    picture(1).save(folder.parent / "images-2" / "z.png")
    matches = sorted(glob.glob(pattern, recursive=True))
    given = [path for path in matches if os.path.isdir(path) or path.lower().endswith((".png", ".jpg"))]
    assert names(find_items([pattern])) == names(find_items(given))


def test_all_that_is_missing_is_told_at_once(folder: Path) -> None:
    with pytest.raises(DataError, match=r"no\.png, images/\*\.gif"):
        find_items(["no.png", "images/a.JPG", "images/*.gif"])


def test_nothing_found_is_an_error(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="no images in images/empty"):
        find_items(["images/empty"])


@pytest.mark.parametrize(
    "address", ["https://example.org/a.jpg", "HTTP://example.org", "s3://bucket/a.png", "file:///a"]
)
def test_addresses_are_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="web addresses"):
        find_items([address])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_refused_and_never_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    assert "images/pipe.png" not in names(find_items(["images"]))
    with pytest.raises(DataError, match="no regular file"):
        find_items(["images/pipe.png"])


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_names_that_spreadsheets_would_run_stay_paths(folder: Path, start: str) -> None:
    Path(f"{start}1+1.png").write_bytes(png(1))
    (item,) = find_items([f"{start}1+1.png"])
    assert item.name == f"./{start}1+1.png"
    assert Path(item.name).is_file()


def test_names_are_one_line_of_printable_text(folder: Path) -> None:
    for name in ("a\nb.png", "red\x1b[31m.png", os.fsdecode(b"latin\xe4.png")):
        (folder / name).write_bytes(png(1))
    found = names(find_items(["images/*.png"]))
    assert r"images/a\nb.png" in found
    assert r"images/red\x1b[31m.png" in found
    assert r"images/latin\udce4.png" in found
    assert all(name.isprintable() and name.encode() for name in found)


def test_printable_leaves_ordinary_text_alone() -> None:
    assert printable("ä 皮 é\u00a0.png") == "ä 皮 é\u00a0.png"


def test_entries_of_an_archive_are_read_where_they_lie(folder: Path, tiny_model: Path) -> None:
    with zipfile.ZipFile("all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("set")
        for name in ("set/z.png", "../../up.png", "set/a.PNG", "__MACOSX/set/z.png", "set/.h.png", "readme.txt"):
            archive.writestr(name, png(7))
    before = sorted(Path().rglob("*"))
    found = find_items(["all.zip"])
    assert names(found) == ["all.zip#../../up.png", "all.zip#set/a.PNG", "all.zip#set/z.png"]
    assert found[-1].image_id == "z"
    classifier = Classifier.load(tiny_model)
    direct = classifier.prepare(png(7)).pixels
    assert all((classifier.prepare(item.read(), item.name).pixels == direct).all() for item in found)
    assert sorted(Path().rglob("*")) == before, "an archive was unpacked"


def test_bombs_in_an_archive_are_refused_before_they_unpack(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("flat.png", bytes(8 * 2**20))
        archive.writestr("fine.png", png(1))
    flat, fine = find_items([path])[::-1]
    assert fine.read() == png(1)
    with pytest.raises(DataError, match="decompression bomb"):
        flat.read()


def test_entries_that_claim_to_be_huge_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", png(1))
    data, size = bytearray(path.read_bytes()), len(png(1)).to_bytes(4, "little")
    place = data.rindex(size)  # in the list at the end, the size once it is unpacked
    data[place : place + 4] = (MAX_ENTRY_BYTES + 1).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(DataError, match="too large"):
        read_entry(path, "a.png")


def bomb(path: Path, method: int, *, claimed_bytes: int, packed_bytes: int = 0, unpacked_bytes: int = 2**25) -> Path:
    """An archive of zeros that says in its list how few they are, and with `packed_bytes` how long they are packed."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.png", bytes(unpacked_bytes))
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\1\2") + 20
    packed, unpacked = struct.unpack_from("<LL", data, place)
    assert unpacked == unpacked_bytes
    struct.pack_into("<LL", data, place, packed_bytes or packed, claimed_bytes)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (zipfile.ZIP_DEFLATED, "more than the 100000 bytes"),
        (zipfile.ZIP_BZIP2, "compressed by bzip2"),
        (zipfile.ZIP_LZMA, "compressed by lzma"),
    ],
)
def test_bombs_that_claim_to_be_small_take_no_memory(tmp_path: Path, method: int, said: str) -> None:
    path = bomb(tmp_path / "bomb.zip", method, claimed_bytes=100_000)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=said):
            read_entry(path, "a.png")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_stored_entry_that_goes_on_is_refused(tmp_path: Path) -> None:
    path = bomb(tmp_path / "long.zip", zipfile.ZIP_STORED, claimed_bytes=1000, unpacked_bytes=100_000)
    with pytest.raises(DataError, match="more than the 1000 bytes"):
        read_entry(path, "a.png")


def test_a_packed_size_beyond_the_archive_hides_no_bomb(tmp_path: Path) -> None:
    path = bomb(tmp_path / "hidden.zip", zipfile.ZIP_DEFLATED, claimed_bytes=2**25, packed_bytes=2**24)
    with pytest.raises(DataError, match="decompression bomb"):
        read_entry(path, "a.png")


def test_entries_of_any_length_are_whole(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = tmp_path / f"{method}.zip"
        contents = {f"{size}.png": os.urandom(size) for size in (0, 1, 2**16 - 1, 2**16, 2**16 + 1, 300_000)}
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
        assert {name: read_entry(path, name) for name in contents} == contents


def test_damage_in_an_archive_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", png(1))
    data = bytearray(path.read_bytes())
    data[100] ^= 0xFF
    path.write_bytes(data)
    (item,) = find_items([path])
    with pytest.raises(DataError, match=r"a\.png cannot be unpacked"):
        item.read()
    path.write_bytes(data[:50])
    with pytest.raises(DataError, match="no readable zip archive"):
        find_items([path])


def test_arrays_packs_and_catalogues_give_the_same_pictures(
    folder: Path, tiny_model: Path, synthetic_catalog: Catalog
) -> None:
    classifier = Classifier.load(tiny_model)
    rows = Catalog(synthetic_catalog.rows[:3], "three", synthetic=True)
    rows.to_csv(Path("three.csv"))
    write_pack(rows, Path("three.parquet"), size_px=64)
    arrays = np.stack([np.asarray(Image.open(row.path).convert("RGB")) for row in rows])
    np.savez("three.npz", train_images=arrays, train_labels=np.zeros((3, 1)))

    csv, pack, npz = (find_items([f"three.{kind}"]) for kind in ("csv", "parquet", "npz"))
    assert names(csv) == [str(row.path) for row in rows]
    assert names(pack) == [f"three.parquet#row:{i}" for i in range(3)]
    assert names(npz) == [f"three.npz#train_images/{i}" for i in range(3)]
    assert [item.image_id for item in pack] == [item.image_id for item in csv] == [row.image_id for row in rows]
    assert [item.image_id for item in npz] == ["train_000000", "train_000001", "train_000002"]
    for from_csv, from_pack, from_npz in zip(csv, pack, npz, strict=True):
        squares = [classifier.prepare(item.read(), item.name).pixels for item in (from_csv, from_pack, from_npz)]
        assert (squares[0] == squares[2]).all()
        assert np.abs(squares[0].astype(int) - squares[1]).mean() < 4, "the pack is JPEG again"


def test_frames_of_a_dicom_file_are_an_image_each(folder: Path, tiny_model: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import ExplicitVRLittleEndian

    frames = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7.4"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    data.PatientName, data.Modality = "Secret^Person", "XC"
    data.Rows, data.Columns, data.NumberOfFrames, data.SamplesPerPixel = 40, 40, 3, 3
    data.PhotometricInterpretation, data.PlanarConfiguration = "RGB", 0
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.PixelData = frames.tobytes()
    (folder / "series").mkdir()
    for name in ("three.dcm", "IM00001"):  # hospitals' files often have no ending
        data.save_as(folder / "series" / name, enforce_file_format=True)
    with zipfile.ZipFile("frames.zip", "w") as archive:
        archive.write(folder / "series" / "three.dcm", "three.dcm")
    found = find_items(["images/series", "frames.zip"])
    assert names(found)[:3] == [f"images/series/IM00001#frame:{i}" for i in range(3)]
    assert names(found)[-3:] == [f"frames.zip#three.dcm#frame:{i}" for i in range(3)]
    assert found[4].image_id == "three_frame1"
    classifier = Classifier.load(tiny_model)
    for number, item in enumerate(found):
        square = classifier.prepare(item.read(), item.name).pixels
        assert (square == classifier.prepare(frames[number % 3]).pixels).all()


def test_a_damaged_dicom_file_is_one_image_that_fails(folder: Path) -> None:
    (folder / "bad.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 40)
    (item,) = find_items(["images/bad.dcm"])
    assert item.name == "images/bad.dcm"
