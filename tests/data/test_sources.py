"""Every layout on disk, every kind of problem, and the errors of whole sources."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lentigo.core.errors import ConfigError, DataError
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.catalog import Catalog, read_catalog_csv
from lentigo.data.sources import PROBLEM_KINDS, load_catalog, scan_source

HAM_HEADER = "image_id,lesion_id,dx,dx_type,age,sex,localization"


def make_images(folder: Path, *names: str) -> None:
    """Tiny files with image names; sources never open them."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(path, "JPEG")


def write_ham(folder: Path, *lines: str, header: str = HAM_HEADER, encoding: str = "utf-8") -> Path:
    path = folder / "HAM10000_metadata.csv"
    path.write_text("\n".join((header, *lines)) + "\n", encoding=encoding)
    return path


def problem_kinds(source: Path, **options: Path) -> Counter[str]:
    return Counter(problem.kind for problem in scan_source(source, **options)[1])


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """Kaggle's layout: two image folders, one of them again in other case; no primary, split, file."""
    make_images(
        tmp_path,
        "HAM10000_images_part_1/a.jpg",
        "ham10000_images_part_1/a.jpg",
        "HAM10000_images_part_2/b.jpg",
    )
    make_images(tmp_path, "HAM10000_images_part_2/c.jpg")
    (tmp_path / "hmnist_28_28_L.csv").write_text("pixel0000,label\n1,2\n")
    return write_ham(
        tmp_path,
        "a,L1,mel,histo,45.0,Male,Back",
        "b,L1,MEL,histo,,unknown,unknown",
        "c,L2,nv,follow_up,0.0,female,trunk",
        encoding="utf-8-sig",
    )


def test_kaggle_layout(kaggle: Path) -> None:
    catalog = load_catalog(kaggle)
    assert [row.image_id for row in catalog] == ["a", "b", "c"]
    assert [CLASS_CODES[row.label] for row in catalog] == ["mel", "mel", "nv"]
    assert [row.primary for row in catalog] == [True, False, True]
    assert [row.age_years for row in catalog] == [45.0, None, 0.0]
    assert [row.sex for row in catalog] == ["male", "", "female"]
    assert [row.site for row in catalog] == ["back", "", "trunk"]
    assert catalog.rows[0].path == kaggle.parent / "HAM10000_images_part_1/a.jpg"
    assert {row.split for row in catalog} == {""}
    assert not catalog.synthetic
    assert catalog.name == "HAM10000_metadata"
    assert load_catalog(kaggle.parent).rows == catalog.rows


def test_images_elsewhere(tmp_path: Path) -> None:
    make_images(tmp_path / "far", "deep/a.JPG")
    (tmp_path / "table").mkdir()
    source = write_ham(tmp_path / "table", "a,L1,mel,histo,45,male,back")
    assert problem_kinds(source) == {"missing-file": 1}
    assert len(load_catalog(source, images=tmp_path / "far")) == 1
    with pytest.raises(DataError, match="no folder of images"):
        load_catalog(source, images=tmp_path / "absent")


def test_columns_in_any_order_and_case(tmp_path: Path) -> None:
    make_images(tmp_path, "x/a.jpg", "x/b.jpg", "x/c.jpg")
    source = write_ham(
        tmp_path,
        r"x\a.jpg;train;1;nevus;L1;a",
        "x/b.jpg;validation;0;bowen;L2;b",
        "x/c.jpg;validation;1;bowen;L2;c",
        "",
        header="File;Split;Primary;DX;Lesion_ID;Image_ID",
    )
    catalog = load_catalog(source)
    assert [(row.image_id, row.split, row.primary) for row in catalog] == [
        ("a", "train", True),
        ("b", "val", False),
        ("c", "val", True),
    ]
    assert [CLASS_CODES[row.label] for row in catalog] == ["nv", "akiec", "akiec"]


def test_every_lesion_has_a_judged_image_in_its_split(tmp_path: Path) -> None:
    make_images(tmp_path, *(f"{name}.jpg" for name in "abcdefgh"))
    lines = (
        "a,L1,nv,train,0", "b,L1,nv,train,1",
        "c,L2,nv,train,0", "d,L2,nv,train,0",
        "e,L3,mel,,0",
        "f,L4,mel,extra,0", "g,L4,mel,train,0",
        "h,L5,mel,extra,0",
    )  # fmt: skip
    source = write_ham(tmp_path, *lines, header="image_id,lesion_id,dx,split,primary")
    catalog, problems, notes = scan_source(source)
    assert [row.image_id for row in catalog if row.primary] == ["b", "c", "e", "g"], "extra is never judged"
    assert problems == []
    assert [(note.kind, note.detail) for note in notes] == [
        ("no-primary", "L2 (c)"),
        ("no-primary", "L3 (e)"),
        ("no-primary", "L4 (g)"),
    ]
    assert load_catalog(source).rows == catalog.rows
    split = Catalog(tuple(replace(row, primary=False) for row in catalog)).to_csv(tmp_path / "split.csv")
    assert [row.image_id for row in load_catalog(split) if row.primary] == ["a", "c", "e", "g"]
    assert not any(row.primary for row in read_catalog_csv(split)), "a run's own table is read as it is"


def test_decimal_commas(tmp_path: Path) -> None:
    make_images(tmp_path, "a.jpg")
    source = write_ham(tmp_path, "a;L1;mel;52,5", header="image_id;lesion_id;dx;age")
    assert load_catalog(source).rows[0].age_years == 52.5
    isic = tmp_path / "truth.csv"
    isic.write_text(f"{ISIC_HEADER.replace(',', ';')}\na;0,0;1,0;0,0;0,0;0,0;0,0;0,0\n")
    assert load_catalog(isic).labels.tolist() == [CLASS_CODES.index("nv")]


def test_an_image_id_may_be_a_file_name(tmp_path: Path) -> None:
    make_images(tmp_path, "x/a.jpg", "x/a.png", "x/b.png", "x/c.2.jpg")
    source = write_ham(tmp_path, *(f"{name},,mel,histo,45,male,back" for name in ("a.png", "b.JPG", "c.2", "d.PNG")))
    catalog, problems, _ = scan_source(source)
    assert [(row.image_id, row.path.name) for row in catalog] == [
        ("a.png", "a.png"),
        ("b.JPG", "b.png"),
        ("c.2", "c.2.jpg"),
    ]
    assert "no file d.PNG below" in problems[0].detail


def test_images_behind_links_are_found(tmp_path: Path) -> None:
    make_images(tmp_path / "elsewhere", "a.jpg")
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "images").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "table", target_is_directory=True)
    source = write_ham(tmp_path / "table", "a,L1,mel,histo,45,male,back")
    assert load_catalog(source).rows[0].path == tmp_path / "table/images/a.jpg"


def test_columns_that_are_not_read_are_noted(tmp_path: Path) -> None:
    make_images(tmp_path, "a.jpg")
    source = write_ham(tmp_path, "a,L1,mel,P1,x,", header="image_id,lesion_id,dx,PatientID,dataset,")
    assert [(note.kind, note.detail) for note in scan_source(source)[2]] == [
        ("unused-column", "patientid (did you mean patient_id?)"),
        ("unused-column", "dataset"),
        ("unused-column", "one without a name"),
    ]
    source = write_ham(tmp_path, "a,L1,mel,P1,1", header="image_id,lesion_id,dx,patient_id,Patient")
    assert [note.detail for note in scan_source(source)[2]] == ["patient"], "what is there is not suggested"


def test_a_named_file_is_not_replaced_by_another(tmp_path: Path) -> None:
    make_images(tmp_path, "small/a.jpg")
    source = write_ham(tmp_path, "a,L1,mel,large/a.jpg", header="image_id,lesion_id,dx,file")
    assert problem_kinds(source) == {"missing-file": 1}
    assert problem_kinds(source, images=tmp_path) == {}


def test_jpeg_wins_over_a_mask_of_the_same_name(tmp_path: Path) -> None:
    make_images(tmp_path, "a_masks/a.png", "images/a.jpg", ".cache/a.jpg")
    source = write_ham(tmp_path, "a,L1,mel,histo,45,male,back")
    assert load_catalog(source).rows[0].path == tmp_path / "images/a.jpg"


@pytest.mark.parametrize("unknown", ["", "unknown", "NaN", "NA", "none"])
def test_unknown_lesion_ids_stand_alone(tmp_path: Path, unknown: str) -> None:
    make_images(tmp_path, "a.jpg", "b.jpg")
    source = write_ham(tmp_path, f"a,{unknown},mel,histo,45,male,back", f"b,{unknown},mel,histo,45,male,back")
    assert [(row.lesion_id, row.has_lesion_id) for row in load_catalog(source)] == [
        ("a", False),
        ("b", False),
    ]


def test_ids_keep_their_case_and_words_do_not(tmp_path: Path) -> None:
    make_images(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    header = "image_id,lesion_id,dx,patient_id,sex,localization"
    lines = "a,L1,mel,A1,Male,Back", "b,l1,mel,a1,F,Back", "c,l2,mel,Unknown,UNKNOWN,NaN"
    rows = load_catalog(write_ham(tmp_path, *lines, header=header)).rows
    assert [(row.lesion_id, row.patient_id, row.sex, row.site) for row in rows] == [
        ("L1", "A1", "male", "back"),
        ("l1", "a1", "f", "back"),
        ("l2", "", "", ""),
    ]


def test_synthetic_flag(tmp_path: Path) -> None:
    make_images(tmp_path, "a.jpg", "b.jpg")
    source = write_ham(tmp_path, "a,L1,mel,synthetic,45,male,back", "b,L2,nv,synthetic,45,male,back")
    assert load_catalog(source).synthetic
    write_ham(tmp_path, "a,L1,mel,synthetic,45,male,back", "b,L2,nv,histo,45,male,back")
    assert load_catalog(source).synthetic, "one drawing makes a synthetic data set"
    write_ham(tmp_path, "a,L1,mel,histo,45,male,back", "b,L2,nv,histo,45,male,back")
    assert not load_catalog(source).synthetic


def test_all_problems_of_a_table_at_once(tmp_path: Path) -> None:
    make_images(tmp_path, *(f"{name}.jpg" for name in "abcdef"))
    source = write_ham(
        tmp_path,
        "a,L1,mel,histo,45,male,back,train,1",
        "a,L1,mel,histo,45,male,back,train,1",
        "b,L2,melanom,histo,45,male,back,train,1",
        "c,L3,mel,histo,old,male,back,train,1",
        "d,L4,mel,histo,450,male,back,dev,maybe",
        ",L5,mel,histo,45,male,back,train,1",
        "e,L6,mel",
        "gone,L7,zebra,histo,45,male,back,train,1",
        header=HAM_HEADER + ",split,primary",
    )
    catalog, problems, _ = scan_source(source)
    assert [row.image_id for row in catalog] == ["a"]
    kinds = Counter(problem.kind for problem in problems)
    assert kinds == {
        "duplicate-id": 1,
        "unknown-class": 2,
        "malformed-row": 4,
        "unknown-split": 1,
        "empty-id": 1,
        "missing-file": 1,
    }
    of_tables = set(PROBLEM_KINDS) - {"outside-class-folder"}
    assert set(kinds) == of_tables
    details = "\n".join(problem.detail for problem in problems)
    assert "did you mean 'mel'?" in details
    assert "line 2 and again in line 3" in details
    with pytest.raises(DataError) as caught:
        load_catalog(source)
    assert "HAM10000 table" in caught.value.message
    assert "10 problems" in caught.value.message
    assert all(kind in caught.value.message and kind in caught.value.remedy for kind in of_tables)


def test_summary_names_five_and_counts_the_rest(tmp_path: Path) -> None:
    source = write_ham(tmp_path, *(f"i{number},L{number},mel,histo,45,male,back" for number in range(12)))
    with pytest.raises(DataError, match=r"missing-file \(12\): i0, i1, i2, i3, i4 and 7 more") as caught:
        load_catalog(source)
    assert "--images" in caught.value.remedy


def test_a_lesion_in_two_splits_is_an_error(tmp_path: Path) -> None:
    make_images(tmp_path, "a.jpg", "b.jpg")
    source = write_ham(tmp_path, "a,L1,mel,train", "b,L1,mel,test", header="image_id,lesion_id,dx,split")
    assert scan_source(source)[1] == []
    with pytest.raises(DataError, match="more than one split"):
        load_catalog(source)


ISIC_HEADER = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"


def test_isic_one_hot(tmp_path: Path) -> None:
    make_images(tmp_path / "input", "I1.jpg", "I2.jpg", "I3.jpg")
    source = tmp_path / "ISIC2018_Task3_Training_GroundTruth.csv"
    source.write_text(f"{ISIC_HEADER}\nI1,1.0,0.0,0.0,0.0,0.0,0.0,0.0\nI2,0,0,0,1,0,0,0\nI3,0,0,0,0,0,0,1\n")
    catalog = load_catalog(source)
    assert [CLASS_CODES[row.label] for row in catalog] == ["mel", "akiec", "vasc"]
    assert not any(row.has_lesion_id for row in catalog)
    (tmp_path / "ISIC2018_Task3_Training_LesionGroupings.csv").write_text(
        "image,lesion_id,lesion_id.diagnosis_confirm_type\nI1,L1,histopathology\nI2,L1,histopathology\n"
    )
    rows = load_catalog(tmp_path).rows
    assert [(row.lesion_id, row.has_lesion_id, row.primary) for row in rows] == [
        ("L1", True, True),
        ("L1", True, False),
        ("I3", False, True),
    ]


def test_isic_tables_may_have_the_columns_of_the_others(tmp_path: Path) -> None:
    make_images(tmp_path, "x/I1.jpg", "x/I2.jpg", "x/I3.jpg", "far/I3.jpg")
    extra = ",lesion_id,patient_id,age,sex,localization,dx_type,primary,split,file,UNK,age_approx"
    source = tmp_path / "truth.csv"
    source.write_text(
        f"{ISIC_HEADER}{extra}\n"
        "I1,1,0,0,0,0,0,0,L1,P1,50,Male,back,histo,0,train,x/I1.jpg,0,50\n"
        "I2,1,0,0,0,0,0,0,L1,P1,50,Male,back,histo,1,train,x/I2.jpg,0,50\n"
        "I3,0,1,0,0,0,0,0,NA,,,,,,1,val,far/I3.jpg,0,\n"
    )
    rows = load_catalog(source).rows
    assert [(row.lesion_id, row.patient_id, row.primary, row.split) for row in rows] == [
        ("L1", "P1", False, "train"),
        ("L1", "P1", True, "train"),
        ("I3", "", True, "val"),
    ]
    assert (rows[0].age_years, rows[0].sex, rows[0].site, rows[0].dx_type) == (50, "male", "back", "histo")
    assert (rows[2].path, rows[2].has_lesion_id) == (tmp_path / "far/I3.jpg", False)
    assert [note.detail for note in scan_source(source)[2]] == ["age_approx"]
    source.write_text(source.read_text().replace("L1,P1,50", "L1,P1,old"))
    assert problem_kinds(source) == {"malformed-row": 2}


def test_isic_lesion_groups_of_ids_that_are_file_names(tmp_path: Path) -> None:
    make_images(tmp_path, "I1.jpg", "I2.jpg")
    (tmp_path / "truth.csv").write_text(f"{ISIC_HEADER}\nI1.jpg,1,0,0,0,0,0,0\nI2.jpg,1,0,0,0,0,0,0\n")
    (tmp_path / "LesionGroupings.csv").write_text("image,lesion_id\nI1,L1\nI2,unknown\n")
    rows = load_catalog(tmp_path / "truth.csv").rows
    assert [(row.lesion_id, row.has_lesion_id) for row in rows] == [("L1", True), ("I2.jpg", False)]


def test_isic_problems(tmp_path: Path) -> None:
    make_images(tmp_path, *(f"I{number}.jpg" for number in range(6)))
    source = tmp_path / "truth.csv"
    source.write_text(
        f"{ISIC_HEADER},UNK\n"
        "I0,1,0,0,0,0,0,0,0\nI1,0,0,0,0,0,0,0,0\nI2,1,1,0,0,0,0,0,0\n"
        "I3,0.5,0,0,0,0,0,0,0\nI4,x,0,0,0,0,0,0,0\n"
        "I5,0,0,0,0,0,0,0,1\nI6,1,0,0,0,0,0,0,0\n"
    )
    assert problem_kinds(source) == {"malformed-row": 4, "unknown-class": 1, "missing-file": 1}


def test_folder_per_class(tmp_path: Path) -> None:
    root = tmp_path / "moles"
    make_images(root, "Melanoma/a.jpg", "nv/b.jpeg", "nv/deep/c.jpg", "Basal_Cell_Carcinoma/d.jpg")
    for name in ("nv/.hidden.jpg", "nv/Thumbs.db", "nv/notes.txt", ".git/x.jpg"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("no image")
    (root / "nv/phone.heic").write_text("is kept, so that the check tells of it")
    catalog = load_catalog(root)
    assert catalog.name == "moles"
    assert {row.image_id: CLASS_CODES[row.label] for row in catalog} == {
        "a": "mel",
        "b": "nv",
        "c": "nv",
        "d": "bcc",
        "phone": "nv",
    }
    assert not any(row.has_lesion_id or row.split for row in catalog)


def test_folder_with_splits_and_lesions(tmp_path: Path) -> None:
    make_images(tmp_path, "train/mel/a.jpg", "train/mel/b.jpg", "valid/nv/c.jpg", "test/nv/d.jpg")
    (tmp_path / "lesions.csv").write_text("file,lesion_id\ntrain/mel/a.jpg,L1\nb.jpg,L1\nc,L2\nunused.jpg,L9\n")
    rows = load_catalog(tmp_path).rows
    assert {row.image_id: (row.split, row.lesion_id, row.has_lesion_id, row.primary) for row in rows} == {
        "a": ("train", "L1", True, True),
        "b": ("train", "L1", True, False),
        "c": ("val", "L2", True, True),
        "d": ("test", "d", False, True),
    }
    (tmp_path / "lesions.csv").write_text("image_id,lesion_id\na,L1\nd,L1\n")
    with pytest.raises(DataError, match="more than one split"):
        load_catalog(tmp_path)
    (tmp_path / "lesions.csv").write_text("picture,group\na,L1\n")
    with pytest.raises(DataError, match="expected the columns image_id or file"):
        load_catalog(tmp_path)


def test_lesions_of_ids_with_dots(tmp_path: Path) -> None:
    make_images(tmp_path, "mel/a.1.jpg", "mel/a.2.jpg", "mel/b.jfif")
    (tmp_path / "lesions.csv").write_text("image_id,lesion_id\na.1,L1\na.2,L2\nb.jfif,L3\n")
    assert [row.lesion_id for row in load_catalog(tmp_path)] == ["L1", "L2", "L3"]


@pytest.mark.parametrize("place", ["", "train/"])
def test_images_beside_class_folders_are_a_problem(tmp_path: Path, place: str) -> None:
    make_images(tmp_path, "train/mel/a.jpg" if place else "mel/a.jpg", f"{place}loose.JPG", f"{place}.hidden.jpg")
    (tmp_path / place / "readme.txt").write_text("no image")
    assert problem_kinds(tmp_path) == {"outside-class-folder": 1}
    with pytest.raises(DataError, match=f"{place}loose.JPG lies beside the class folders") as caught:
        load_catalog(tmp_path)
    assert "move the images into class folders" in caught.value.remedy


def test_linked_folders_in_class_folders_are_read_once(tmp_path: Path) -> None:
    make_images(tmp_path, "set/mel/a.jpg", "elsewhere/b.jpg", "elsewhere/deep/c.jpg")
    for name, target in (("more", "elsewhere"), ("again", "elsewhere"), ("self", "set/mel")):
        (tmp_path / "set/mel" / name).symlink_to(tmp_path / target, target_is_directory=True)
    (tmp_path / "set/mel/gone.jpg").symlink_to("nowhere.jpg")
    assert [row.image_id for row in load_catalog(tmp_path / "set")] == ["a", "b", "c"]


def test_folder_problems(tmp_path: Path) -> None:
    make_images(tmp_path, "mel/a.jpg", "nv/a.jpg", "melanomma/x.jpg", "zebra/y.jpg")
    catalog, problems, _ = scan_source(tmp_path)
    assert len(catalog) == 1
    assert Counter(problem.kind for problem in problems) == {"duplicate-id": 1, "unknown-class": 2}
    with pytest.raises(DataError, match="did you mean 'mel'"):
        load_catalog(tmp_path)
    make_images(tmp_path, "train/nv/b.jpg")
    assert problem_kinds(tmp_path) == {"unknown-split": 4}


def medmnist(path: Path, **changes: object) -> Path:
    arrays: dict[str, object] = {}
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        arrays[f"{split}_images"] = np.full((count, 28, 30, 3), 9, dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count, dtype=np.uint8).reshape(-1, 1)
    arrays.update(changes)
    np.savez_compressed(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_medmnist(tmp_path: Path) -> None:
    catalog = load_catalog(medmnist(tmp_path / "dermamnist.npz"))
    assert Counter(row.split for row in catalog) == {"train": 4, "test": 3, "val": 2}
    row = catalog.rows[2]
    assert (row.image_id, row.member, row.label, row.lesion_id) == (
        "train_000002",
        "train_images/2",
        2,
        "train_000002",
    )
    assert not row.has_lesion_id
    assert (row.width, row.height) == (30, 28)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"val_labels": None}, "lacks the arrays val_labels"),
        ({"val_images": np.zeros((2, 28, 28, 4), dtype=np.uint8)}, "expected val_images"),
        ({"val_images": np.zeros((2, 28, 28, 3))}, "expected val_images"),
        ({"val_labels": np.zeros((3, 1), dtype=np.uint8)}, "expected val_images"),
        ({"test_labels": np.full((3, 1), 7, dtype=np.uint8)}, "labels of 0 to 6"),
        ({"test_labels": np.full((3, 1), 0.5)}, "whole labels"),
        ({"test_labels": np.full((3, 1), None)}, "damaged|whole"),
    ],
)
def test_wrong_medmnist_arrays(changes: dict[str, object], text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=text):
        load_catalog(medmnist(tmp_path / "dermamnist.npz", **changes))


def test_catalog_csv_round_trip(kaggle: Path, tmp_path: Path) -> None:
    catalog = load_catalog(kaggle)
    path = catalog.to_csv(tmp_path / "out" / "split.csv")
    assert load_catalog(path).rows == catalog.rows
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_catalog(path).rows == catalog.rows


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_catalogues_that_a_spreadsheet_saved_again(kaggle: Path, tmp_path: Path, delimiter: str) -> None:
    rows = tuple(replace(row, age_years=52.5) for row in load_catalog(kaggle))
    path = Catalog(rows).to_csv(tmp_path / "out" / "split.csv")
    text = path.read_text(encoding="utf-8").replace(",", delimiter).replace("52.5", "52,5").replace("\n", "\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode() + delimiter.encode() * 16 + b"\r\n")
    assert load_catalog(path).rows == rows


@pytest.mark.parametrize("age", ["200", "-1", "old", "inf"])
def test_impossible_ages_in_a_catalogue(kaggle: Path, tmp_path: Path, age: str) -> None:
    path = load_catalog(kaggle).to_csv(tmp_path / "out" / "split.csv")
    path.write_text(path.read_text().replace(",45,", f",{age},"))
    with pytest.raises(DataError, match="1 malformed rows: line 2") as caught:
        load_catalog(path)
    assert "age_years is 0 to 120" in caught.value.remedy


def test_catalog_csv_problems_and_moved_images(kaggle: Path, tmp_path: Path) -> None:
    path = load_catalog(kaggle).to_csv(tmp_path / "out" / "split.csv")
    path.write_text(path.read_text() + path.read_text().splitlines()[-1] + "\n")
    (tmp_path / "moved").mkdir()
    (tmp_path / "HAM10000_images_part_2/b.jpg").rename(tmp_path / "moved/b.jpg")
    assert problem_kinds(path) == {"duplicate-id": 1, "missing-file": 1}
    assert problem_kinds(path, images=tmp_path / "moved") == {"duplicate-id": 1}


@pytest.mark.parametrize("column", ["has_lesion_id", "primary"])
def test_flags_of_a_catalogue_as_spreadsheets_write_them(kaggle: Path, tmp_path: Path, column: str) -> None:
    rows = load_catalog(kaggle).rows
    path = Catalog(rows).to_csv(tmp_path / "split.csv")
    header, *lines = (line.split(",") for line in path.read_text(encoding="utf-8").splitlines())
    place = header.index(column)
    assert {line[place] for line in lines} <= {"1", "0"}

    def written_with(yes: str, no: str) -> Path:
        cells = [[*line[:place], yes if line[place] == "1" else no, *line[place + 1 :]] for line in lines]
        path.write_text("\n".join(map(",".join, [header, *cells])), encoding="utf-8")
        return path

    for yes, no in (("1.0", "0.0"), ("True", "False"), ("TRUE", "FALSE")):
        assert read_catalog_csv(written_with(yes, no)).rows == rows
    with pytest.raises(DataError, match=rf"{len(rows)} malformed rows: line 2, line 3.*") as caught:
        read_catalog_csv(written_with("yes", "no"))
    assert f"{column}" in caught.value.remedy
    with pytest.raises(DataError, match="malformed rows: line 2"):
        read_catalog_csv(written_with("", ""))


def corrupt_npz(path: Path) -> Path:
    data = medmnist(path / "a.npz").read_bytes()
    (path / "a.npz").write_bytes(data[: len(data) // 2])
    return path / "a.npz"


def text_file(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def two_tables(folder: Path) -> Path:
    write_ham(folder, "a,L1,mel,histo,45,male,back")
    (folder / "second.csv").write_text((folder / "HAM10000_metadata.csv").read_text())
    return folder


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda folder: folder / "absent", "no data set at"),
        (lambda folder: folder, "found nothing"),
        (lambda folder: text_file("photo.jpg", b"x")(folder).parent, "found photo.jpg"),
        (two_tables, "holds 2 tables"),
        (text_file("a.csv", b""), "is empty"),
        (text_file("a.csv", b"\n\n"), "is empty"),
        (text_file("a.csv", HAM_HEADER.encode()), "has a header and no rows"),
        (text_file("a.csv", b"id,diagnosis\n1,mel\n"), "found the columns id, diagnosis"),
        (text_file("a.csv", HAM_HEADER.encode("utf-16")), "not UTF-8"),
        (text_file("a.csv", b"image_id,lesion_id,dx,dx\n1,2,mel,mel\n"), "columns twice: dx"),
        (text_file("a.csv", b"image_id,lesion_id,dx\n" + b"a" * 200_000 + b",b,mel\n"), "line 2: not a CSV"),
        (text_file("a.npz", b"junk"), "expected an .npz"),
        (corrupt_npz, "expected an .npz"),
        (text_file("a.parquet", b"junk"), "expected a Parquet file"),
        (text_file("a.tar", b"junk"), "no known layout"),
    ],
)
def test_whole_source_errors(make: Callable[[Path], Path], text: str, tmp_path: Path) -> None:
    for function in (load_catalog, scan_source):
        with pytest.raises(DataError, match=text) as caught:
            function(make(tmp_path))
        assert caught.value.remedy


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "mel").mkdir()
    with pytest.raises(DataError, match="no images in its folders mel/"):
        load_catalog(tmp_path)


def test_images_option_is_for_tables(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--images"):
        load_catalog(medmnist(tmp_path / "a.npz"), images=tmp_path)


@pytest.fixture(scope="module")
def ham10000() -> Path:
    beside = Path(__file__).parents[2].parent / "shared" / "ham10000"
    folder = Path(os.environ.get("LENTIGO_DATA") or beside)
    if not (folder / "ham10000.csv").is_file():
        pytest.skip(f"no HAM10000 at {folder}; set LENTIGO_DATA")
    return folder


@pytest.mark.real_data
def test_ham10000_loads_whole(ham10000: Path) -> None:
    catalog = load_catalog(ham10000 / "ham10000.csv")
    assert len(catalog) == 10015
    assert len({row.lesion_id for row in catalog}) == 7470
    primary = catalog.filter(lambda row: row.primary)
    assert Counter(row.split for row in primary) == {"train": 3000, "val": 1000, "test": 1000, "extra": 984}
    assert primary.split("val").class_counts.tolist() == [36, 60, 102, 15, 97, 670, 20]
    assert sum(row.age_years is None for row in catalog) == 57
    assert load_catalog(ham10000).rows == catalog.rows


@pytest.mark.real_data
def test_ham10000_as_kaggle_and_isic_tables(ham10000: Path, tmp_path: Path) -> None:
    catalog = load_catalog(ham10000)
    kaggle = write_ham(
        tmp_path, *(f"{r.image_id},{r.lesion_id},{CLASS_CODES[r.label]},{r.dx_type},,," for r in catalog)
    )
    assert [row.path for row in load_catalog(kaggle, images=ham10000)] == [row.path for row in catalog]
    order = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")
    lines = [",".join([row.image_id, *(f"{CLASS_CODES[row.label] == code:d}" for code in order)]) for row in catalog]
    isic = tmp_path / "truth.csv"
    isic.write_text("\n".join([ISIC_HEADER, *lines]))
    assert (load_catalog(isic, images=ham10000).labels == catalog.labels).all()
