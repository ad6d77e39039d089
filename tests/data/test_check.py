"""The check: every kind of finding is provoked, all are told at once, and none raises."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from lentigo.core.errors import DataError
from lentigo.data.catalog import Catalog, Row
from lentigo.data.check import CheckReport, Finding, check_source
from lentigo.data.sources import load_catalog

HEADER = ("image_id", "lesion_id", "dx", "split", "file")


def picture(seed: int, size_px: int = 128) -> Image.Image:
    """Coloured texture at several scales, different for each seed."""
    rng = np.random.default_rng(seed)
    total = np.full((size_px, size_px, 3), 128.0)
    for cells in (5, 16, 40):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += 0.25 * (np.asarray(noise.resize((size_px, size_px), Image.Resampling.BICUBIC)) - 128.0)
    return Image.fromarray(np.clip(total, 0, 255).astype(np.uint8))


class Source:
    """A HAM10000-like table with images, one row at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[tuple[str, ...]] = []

    def add(
        self,
        name: str,
        image: Image.Image | bytes | None,
        *,
        lesion: str = "",
        dx: str = "nv",
        split: str = "",
    ) -> None:
        """One row, and its file unless `image` is None."""
        stem = name.split(".")[0]
        if isinstance(image, bytes):
            (self.folder / name).write_bytes(image)
        elif image is not None:
            image.save(self.folder / name)
        self.rows.append((stem, lesion or f"lesion_{stem}", dx, split, name))

    def check(self, *, near_duplicates: bool = True) -> CheckReport:
        """Write the table and check it."""
        table = self.folder / "table.csv"
        with table.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerows([HEADER, *self.rows])
        return check_source(table, near_duplicates=near_duplicates, threads=1)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)


def findings(report: CheckReport) -> dict[str, Finding]:
    found = {finding.kind: finding for finding in report.findings}
    assert len(found) == len(report.findings)
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False))["has_errors"] == report.has_errors
    return found


def test_a_clean_source_has_no_findings(source: Source) -> None:
    for number in range(70):
        code = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")[number % 7]
        source.add(f"i{number}.png", picture(number), dx=code, split="val" if number < 14 else "train")
    report = source.check()
    assert report.findings == ()
    assert not report.has_errors
    assert (report.image_count, report.lesion_count, report.class_counts["df"]) == (70, 70, 10)
    assert report.split_class_counts["val"]["mel"] == 2
    assert report.duration_s > 0


def test_broken_files_are_told_all_at_once(source: Source) -> None:
    source.add("good.png", picture(0))
    source.add("gone.jpg", None)
    source.add("empty.jpg", b"")
    picture(1).save(source.folder / "whole.jpg")
    source.add("cut.jpg", (source.folder / "whole.jpg").read_bytes()[:1500])
    source.add("page.jpg", b"<html>not found</html>")
    source.add("named.png", (source.folder / "whole.jpg").read_bytes())
    source.add("small.png", picture(2, 60))
    source.add("gray.png", picture(3).convert("L"))
    source.add("vast.png", Image.new("1", (20_000, 6_000)))
    report = source.check()
    found = findings(report)
    assert report.has_errors
    for kind, severity, example in [
        ("missing-file", "error", "gone"),
        ("zero-byte", "error", "empty.jpg"),
        ("truncated", "error", "cut.jpg"),
        ("not-an-image", "error", "page.jpg"),
        ("huge", "error", "vast.png"),
        ("wrong-extension", "warning", "named.png holds JPEG"),
        ("tiny-image", "warning", "small (60 x 60)"),
        ("grayscale-mixed", "note", "gray"),
    ]:
        assert (found[kind].severity, found[kind].count) == (severity, 1), kind
        assert example in found[kind].examples[0]
        assert found[kind].remedy
    severities = [finding.severity for finding in report.findings]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)


def test_rows_labels_and_lesions(source: Source) -> None:
    source.add("a.png", picture(0), lesion="same", dx="nv", split="train")
    source.add("b.png", picture(1), lesion="same", dx="mel", split="test")
    source.add("c.png", picture(2), dx="melanomma")
    source.add("d.png", picture(3), dx="bcc")
    source.add("d.png", None, dx="bcc")
    found = findings(source.check())
    assert "same (mel, nv)" in found["conflicting-labels"].examples
    assert "same in test+train" in found["lesion-across-splits"].examples
    assert "'mel'" in found["unknown-class"].examples[0]
    assert "'d'" in found["duplicate-id"].examples[0]
    assert found["tiny-class"].count == 7
    assert "df (0)" in found["tiny-class"].examples
    assert found["tiny-class"].severity == "warning"


@pytest.mark.parametrize(("column", "kind"), [("patient_id", "patient"), ("group_id", "group")])
def test_what_training_refuses_is_an_error(tmp_path: Path, column: str, kind: str) -> None:
    rows = []
    for number, split in enumerate(("train", "test", "val", "extra")):
        path = tmp_path / f"i{number}.png"
        picture(number).save(path)
        names = {column: ("one", "one", "two", "three")[number]}
        rows.append(replace(Row(path.stem, path, number, f"L{number}", split=split), **names))
    report = check_source(Catalog(tuple(rows)).to_csv(tmp_path / "split.csv"), threads=1)
    found = findings(report)[f"{kind}-across-splits"]
    assert report.has_errors
    assert (found.severity, found.examples) == ("error", ("one in test+train",))
    with pytest.raises(DataError, match=f"1 {kind}s"):
        load_catalog(tmp_path / "split.csv")


def test_notes_on_columns_and_on_lesions_without_a_primary_image(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.png")
    (tmp_path / "table.csv").write_text("image_id,lesion_id,dx,primary,PatientID\na,L1,nv,0,P1\n")
    report = check_source(tmp_path / "table.csv", threads=1)
    found = findings(report)
    assert not report.has_errors
    assert found["unused-column"].message == "1 columns are not used"
    assert found["unused-column"].examples == ("patientid (did you mean patient_id?)",)
    assert found["no-primary"].examples == ("L1 (a)",)
    assert {found[kind].severity for kind in ("unused-column", "no-primary")} == {"note"}


@pytest.mark.parametrize(
    ("splits", "classes", "severity"),
    [
        (("", ""), ("nv", "nv"), "warning"),
        (("train", "extra"), ("nv", "nv"), "warning"),
        (("train", "val"), ("nv", "nv"), "error"),
        (("", ""), ("nv", "mel"), "error"),
    ],
)
def test_identical_files(source: Source, splits: tuple[str, str], classes: tuple[str, str], severity: str) -> None:
    source.add("a.png", picture(0), dx=classes[0], split=splits[0])
    shutil.copy(source.folder / "a.png", source.folder / "b.png")
    source.add("b.png", None, dx=classes[1], split=splits[1])
    source.add("c.png", picture(1))
    found = findings(source.check(near_duplicates=False))
    assert found["identical-bytes"].severity == severity
    assert "near-duplicate" not in found


def test_near_duplicates(source: Source) -> None:
    for number in range(4):
        source.add(f"i{number}.png", picture(number), split="train")
    source.add("across.png", ImageEnhance.Brightness(picture(0)).enhance(0.8), split="test")
    source.add("within.png", ImageEnhance.Brightness(picture(1)).enhance(0.8), split="extra")
    source.add("again.png", ImageEnhance.Brightness(picture(2)).enhance(0.8), lesion="lesion_i2", split="train")
    found = findings(source.check())
    across, within = found["near-duplicate-across-splits"], found["near-duplicate"]
    assert (across.severity, across.count) == ("error", 1)
    assert across.examples[0].startswith("i0 (nv, train) ~ across (nv, test)")
    assert (within.severity, within.count) == ("note", 1)
    assert "near-duplicate-across-splits" not in findings(source.check(near_duplicates=False))


def test_near_duplicates_of_two_classes_are_a_warning(source: Source) -> None:
    source.add("a.png", picture(0), dx="nv")
    source.add("b.png", ImageEnhance.Brightness(picture(0)).enhance(0.8), dx="mel")
    assert findings(source.check())["near-duplicate"].severity == "warning"


def test_folders_without_lesion_ids(tmp_path: Path) -> None:
    for number in range(7):
        folder = tmp_path / ("nv" if number % 2 else "mel")
        folder.mkdir(exist_ok=True)
        picture(number).save(folder / f"i{number}.png")
    found = findings(check_source(tmp_path, threads=1))
    assert (found["no-lesion-id"].severity, found["no-lesion-id"].count) == ("warning", 7)
    assert len(found["no-lesion-id"].examples) == 5


def test_a_missing_source_raises(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set"):
        check_source(tmp_path / "gone", threads=1)


@pytest.mark.real_data
def test_the_leaks_of_the_given_ham10000_split_are_found(real_data: Path, tmp_path: Path) -> None:
    leaking = {"ISIC_0033374", "ISIC_0033417", "ISIC_0033421", "ISIC_0033481"}
    with (real_data / "ham10000.csv").open(newline="") as stream:
        lines = list(csv.reader(stream))
    chosen = [line for number, line in enumerate(lines) if number % 40 == 0 or line[0] in leaking]
    with (tmp_path / "some.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(chosen)
    report = check_source(tmp_path / "some.csv", images=real_data, threads=2)
    assert [(f.kind, f.count) for f in report.findings if f.severity == "error"] == [
        ("near-duplicate-across-splits", 2)
    ]
