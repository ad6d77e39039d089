"""Every kind of broken input through the whole command line: one message, its exit code, nothing written.

Each entry of the table makes its input in an own folder and returns the command; `found` and `remedy` are
what the message must say. `stdout` marks the commands whose findings are their result (`data check`).
"""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lentigo.core.taxonomy import CLASS_CODES
from lentigo.models.network import build_network

HAM_HEADER = "image_id,lesion_id,dx,age,split"
ISIC_HEADER = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"


@dataclass
class Place:
    """An empty folder, and what a case may begin with."""

    folder: Path
    drawn: Path
    split: Path
    trained: Callable[[], Path]
    tiny: tuple[str, ...]
    lentigo: Callable[..., Any]
    held: list[IO[str]]

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def write(self, name: str, content: str | bytes) -> Path:
        """A file with that content."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def image(self, name: str, seed: int = 0) -> Path:
        """A 64-pixel JPEG of noise."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, "JPEG")
        return path

    def table(self, *lines: str, header: str = HAM_HEADER, images: str = "abc") -> Path:
        """A table with those lines, and an image file for every letter of `images`."""
        for number, name in enumerate(images):
            self.image(f"{name}.jpg", number)
        return self.write("table.csv", "\n".join((header, *lines)) + "\n")

    def train(self, *options: object, data: Path | None = None) -> list[object]:
        """A tiny training of the drawings."""
        return ["train", data or self.split, *self.tiny, "--name", "new", *options]

    def split_with(self, old: str, new: str) -> Path:
        """The split table with one text in place of another."""
        text = self.split.read_text()
        assert old in text
        return self.write("edited.csv", text.replace(old, new))

    def run(self) -> Path:
        """An own copy of the trained run."""
        return Path(shutil.copytree(self.trained(), self.folder / "runs" / "old"))


Make = Callable[[Place], list[object]]


@dataclass(frozen=True)
class Case:
    """One kind of broken input."""

    name: str
    make: Make
    code: int
    found: str
    remedy: str
    on_stdout: bool


CASES: list[Case] = []


def case(code: int, found: str, remedy: str, *, stdout: bool = False) -> Callable[[Make], Make]:
    """Add a kind of broken input to the table."""

    def add(make: Make) -> Make:
        CASES.append(Case(make.__name__, make, code, found, remedy, stdout))
        return make

    return add


# --- Data sets as a whole ---------------------------------------------------------------------------------


@case(3, "no data set at nowhere.csv", "Pass one of")
def data_no_such_path(place: Place) -> list[object]:
    return ["data", "check", "nowhere.csv"]


@case(3, "no data set at nowhere", "HAM10000 CSV")
def data_no_such_path_in_training(place: Place) -> list[object]:
    return place.train(data=Path("nowhere"))


@case(3, "found nothing", "Pass one of")
def data_empty_folder(place: Place) -> list[object]:
    (place / "empty").mkdir()
    return ["data", "check", "empty"]


@case(3, "table.csv is empty", "again")
def data_empty_csv(place: Place) -> list[object]:
    return ["data", "check", place.write("table.csv", "")]


@case(3, "has a header and no rows", "again")
def data_csv_without_rows(place: Place) -> list[object]:
    return ["data", "split", place.table(), "--out", "out.csv"]


@case(3, "found the columns name, price", "Rename the columns")
def data_foreign_columns(place: Place) -> list[object]:
    return ["data", "check", place.write("table.csv", "name,price\npear,1\n")]


@case(3, "is not UTF-8 text", "UTF-8")
def data_latin1_csv(place: Place) -> list[object]:
    return ["data", "check", place.write("table.csv", f"{HAM_HEADER}\nbön,l,nv,1,\n".encode("latin-1"))]


@case(3, "table.csv is not UTF-8 text", "CSV in UTF-8")
def data_binary_csv(place: Place) -> list[object]:
    path = place.image("picture.jpg")
    return ["data", "check", path.rename(path.with_name("table.csv"))]


@case(3, "no known layout (ending '.zip')", "Pass one of")
def data_unknown_ending(place: Place) -> list[object]:
    return ["data", "check", place.write("data.zip", b"PK\x03\x04")]


@case(3, "columns twice: dx", "own name")
def data_column_twice(place: Place) -> list[object]:
    return ["data", "check", place.table("a,l,nv,nv", header="image_id,lesion_id,dx,dx")]


@case(3, "no folder of images at elsewhere", "folder that holds the image files")
def data_no_images_folder(place: Place) -> list[object]:
    return ["data", "check", place.drawn, "--images", "elsewhere"]


# --- Rows of tables and class folders ---------------------------------------------------------------------


@case(3, "missing-file (2): b, c", "restore the files")
def rows_missing_files(place: Place) -> list[object]:
    table = place.table("a,1,nv,40,", "b,2,nv,40,", "c,3,mel,40,", images="a")
    return ["data", "split", table, "--out", "out.csv"]


@case(3, "2 rows name files that do not exist", "--images", stdout=True)
def rows_missing_files_checked(place: Place) -> list[object]:
    table = place.table("a,1,nv,40,", "b,2,nv,40,", "c,3,mel,40,", images="a")
    return ["data", "check", table, "--json"]


@case(3, "image id 'a' in line 2 and again in line 4", "own id")
def rows_duplicate_id(place: Place) -> list[object]:
    table = place.table("a,1,nv,40,", "b,2,nv,40,", "a,3,mel,40,")
    return ["data", "split", table, "--out", "out.csv"]


@case(3, "class 'melanom'; did you mean 'mel'?", "rename the class")
def rows_unknown_class(place: Place) -> list[object]:
    return ["data", "split", place.table("a,1,nv,40,", "b,2,melanom,40,"), "--out", "out.csv"]


@case(3, "line 3 has no image id", "fill in the ids")
def rows_empty_id(place: Place) -> list[object]:
    return ["data", "split", place.table("a,1,nv,40,", ",2,nv,40,"), "--out", "out.csv"]


@case(3, "age 'forty' is not a number of years (0 to 120)", "correct the rows")
def rows_malformed_age(place: Place) -> list[object]:
    return ["data", "split", place.table("a,1,nv,forty,"), "--out", "out.csv"]


@case(3, "line 2 has 3 cells; the header has 5", "correct the rows")
def rows_wrong_length(place: Place) -> list[object]:
    return ["data", "split", place.table("a,1,nv", "b,2,nv,40,"), "--out", "out.csv"]


@case(3, "split 'holdout'; the splits are train, val, test, extra", "use train, val, test or extra")
def rows_unknown_split(place: Place) -> list[object]:
    return place.train(data=place.table("a,1,nv,40,train", "b,2,nv,40,holdout"))


@case(3, "line 3: expected one 1 and zeros; found 1,1,0,0,0,0,0", "correct the rows")
def isic_not_one_hot(place: Place) -> list[object]:
    table = place.table("a,0,1,0,0,0,0,0", "b,1,1,0,0,0,0,0", header=ISIC_HEADER)
    return ["data", "split", table, "--out", "out.csv"]


@case(3, "line 2: expected one 1 and zeros; found 0,0,0,0,0,0,0", "correct the rows")
def isic_all_zero(place: Place) -> list[object]:
    table = place.table("a,0,0,0,0,0,0,0", "b,0,1,0,0,0,0,0", header=ISIC_HEADER)
    return ["data", "split", table, "--out", "out.csv"]


@case(3, "melanona/ has the class 'melanona'; did you mean 'mel'?", "rename the class")
def folder_unknown_class(place: Place) -> list[object]:
    place.image("set/nv/a.jpg")
    place.image("set/melanona/b.jpg")
    return ["data", "split", "set", "--out", "out.csv"]


@case(3, "set has no images in its folders mel/, nv/", "Put the images into class folders")
def folder_class_without_images(place: Place) -> list[object]:
    (place / "set" / "mel").mkdir(parents=True)
    place.write("set/nv/notes.txt", "no image")
    return ["data", "check", "set"]


@case(3, "1 lesions have images in more than one split: L1 in train+val", "lentigo data split")
def lesion_in_two_splits(place: Place) -> list[object]:
    return place.train(data=place.table("a,L1,nv,40,train", "b,L1,nv,40,val", "c,L2,mel,40,train"))


@case(3, "L1 in test+train", "Make a new split", stdout=True)
def lesion_in_two_splits_checked(place: Place) -> list[object]:
    table = place.table("a,L1,nv,40,train", "b,L1,nv,40,test", "c,L2,mel,40,train")
    return ["data", "check", table, "--json"]


@case(3, "L1 (mel, nv)", "Find out which diagnosis holds", stdout=True)
def conflicting_labels(place: Place) -> list[object]:
    return ["data", "check", place.table("a,L1,nv,40,", "b,L1,mel,40,"), "--json"]


@case(3, "1 files are copies of another image", "Keep one of each", stdout=True)
def identical_files_of_two_classes(place: Place) -> list[object]:
    table = place.table("a,L1,nv,40,", "b,L2,mel,40,")
    shutil.copy(place / "a.jpg", place / "b.jpg")
    return ["data", "check", table, "--json"]


@case(3, "is not UTF-8", "correct the rows")
def folder_file_name_not_utf8(place: Place) -> list[object]:
    place.image("set/nv/a.jpg")
    (place / "set" / "nv" / "a.jpg").rename(os.fsdecode(os.fsencode(place / "set" / "nv") + b"/b\xff.jpg"))
    return ["data", "split", "set", "--out", "out.csv"]


@case(3, "lesions.csv: expected the columns image_id or file and lesion_id; found price", "Name the columns so")
def folder_foreign_lesion_table(place: Place) -> list[object]:
    place.image("set/nv/a.jpg")
    place.write("set/lesions.csv", "price\n3\n")
    return ["data", "split", "set", "--out", "out.csv"]


@case(3, "malformed rows: line 2", "Write the table again")
def catalog_malformed_row(place: Place) -> list[object]:
    header, first, *rest = place.split.read_text().splitlines()
    broken = first.replace(",synthetic,", ",synthetic,maybe,")
    return place.train(data=place.write("edited.csv", "\n".join((header, broken, *rest))))


@case(3, "missing-file (100)", "restore the files, or name their folder with --images")
def catalog_images_gone(place: Place) -> list[object]:
    return place.train(data=place.split_with("/images/SYNTH", "/gone/SYNTH"))


# --- Images -----------------------------------------------------------------------------------------------


def _pack_of_one(place: Place, damaged: bytes, name: str = "b.jpg") -> list[object]:
    """The command that packs three images, the second one damaged."""
    place.table("a,1,nv,40,", "b,2,nv,40,", "c,3,mel,40,")
    (place / "b.jpg").unlink()
    place.write(name, damaged)
    return ["data", "pack", "table.csv", "--out", "out.parquet", "--size-px", 64]


def _huge_png() -> bytes:
    """A PNG of 100 bytes that announces 900 million pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@case(3, "b.jpg is empty (0 bytes)", "lentigo data check")
def image_zero_bytes(place: Place) -> list[object]:
    return _pack_of_one(place, b"")


@case(3, "b.jpg is truncated or damaged", "Restore or remove these images")
def image_truncated(place: Place) -> list[object]:
    whole = place.image("whole.jpg").read_bytes()
    return _pack_of_one(place, whole[: len(whole) // 2])


@case(3, "b.jpg is not an image; expected JPEG", "Restore or remove")
def image_is_text(place: Place) -> list[object]:
    return _pack_of_one(place, b"this is a letter, not a picture")


@case(
    3,
    "b.png is too large: at most 100 million pixels are decoded; found image size (900000000 pixels)",
    "Restore or remove",
)
def image_decompression_bomb(place: Place) -> list[object]:
    return _pack_of_one(place, _huge_png(), "b.png")


@case(3, "1 images have too many pixels", "Crop or shrink", stdout=True)
def image_decompression_bomb_checked(place: Place) -> list[object]:
    return ["data", "check", *_pack_of_one(place, _huge_png(), "b.png")[2:3], "--json"]


@case(3, "1 of 3 images cannot be read", "lentigo data check")
def image_truncated_in_training(place: Place) -> list[object]:
    table = place.table("a,1,nv,40,train", "b,2,nv,40,train", "c,3,mel,40,train", "d,4,nv,1,val", images="abcd")
    place.write("b.jpg", (place / "b.jpg").read_bytes()[:500])
    return place.train("--set", "training.batch_size=2", data=table)


@case(3, "bad.jpg is truncated or damaged", "again")
def image_truncated_shown(place: Place) -> list[object]:
    place.write("set/nv/bad.jpg", place.image("whole.jpg").read_bytes()[:700])
    return ["data", "show", "set", "--out", "figures"]


# --- Containers -------------------------------------------------------------------------------------------


def _npz(place: Place, **changes: np.ndarray) -> Path:
    """A MedMNIST file of four images a split."""
    arrays: dict[str, np.ndarray] = {}
    for name in ("train", "val", "test"):
        arrays[f"{name}_images"] = np.zeros((4, 28, 28, 3), np.uint8)
        arrays[f"{name}_labels"] = np.arange(4, dtype=np.uint8)[:, None]
    path = place / "dermamnist.npz"
    np.savez(path, **(arrays | changes))
    return path


@case(3, "expected an .npz archive of arrays", "Download or write the file again")
def npz_corrupt(place: Place) -> list[object]:
    path = _npz(place)
    path.write_bytes(path.read_bytes()[:600])
    return ["data", "check", path]


@case(3, "lacks the arrays train_images", "dermamnist.npz")
def npz_without_arrays(place: Place) -> list[object]:
    np.savez(place / "foreign.npz", x=np.zeros(3))
    return ["data", "check", "foreign.npz"]


@case(3, "expected train_images uint8 (N, H, W, 3)", "dermamnist.npz")
def npz_wrong_shape(place: Place) -> list[object]:
    return ["data", "check", _npz(place, train_images=np.zeros((4, 28), np.uint8))]


@case(3, "expected whole labels of 0 to 6 in val_labels; found uint8 0, 9", "Only DermaMNIST")
def npz_labels_out_of_range(place: Place) -> list[object]:
    return ["data", "check", _npz(place, val_labels=np.array([[0], [9], [0], [9]], np.uint8))]


@case(3, "expected a Parquet file", "again")
def parquet_corrupt(place: Place) -> list[object]:
    return ["data", "check", place.write("pack.parquet", b"PAR1 and nothing else")]


@case(3, "is a Parquet file, but not a Lentigo pack", "lentigo data pack")
def parquet_foreign(place: Place) -> list[object]:
    parquet.write_table(pa.table({"price": [1, 2]}), place / "foreign.parquet")
    return place.train(data=place / "foreign.parquet")


@case(3, "pack.parquet is a damaged Lentigo pack", "lentigo data pack")
def parquet_damaged_description(place: Place) -> list[object]:
    table = pa.table({"price": [1, 2]}).replace_schema_metadata({"lentigo": "{half"})
    parquet.write_table(table, place / "pack.parquet")
    return ["data", "check", "pack.parquet"]


# --- Splits and written files -----------------------------------------------------------------------------


def _split(place: Place, *options: object) -> list[object]:
    return ["data", "split", place.drawn, "--out", "out.csv", "--no-near-duplicates", *options]


@case(3, "no training rows: none of the 100 images is in train", "lentigo data split")
def split_without_train(place: Place) -> list[object]:
    return place.train(data=place.drawn)


@case(3, "no validation rows", "training.selection_metric=last")
def split_without_val(place: Place) -> list[object]:
    return place.train(data=place.split_with(",val,", ",test,"))


@case(3, "fractions must sum to 1; found train=0.7, val=0.7, sum 1.4", "train=0.7")
def fractions_sum(place: Place) -> list[object]:
    return _split(place, "--fractions", "train=0.7,val=0.7")


@case(3, "the splits are train, val, test; found 'dev'", "train=0.7")
def fractions_unknown_name(place: Place) -> list[object]:
    return _split(place, "--fractions", "train=0.7,dev=0.3")


@case(2, "--fractions takes name=share pairs; found '0.7'", "train=0.7,val=0.15,test=0.15")
def fractions_malformed(place: Place) -> list[object]:
    return _split(place, "--fractions", "0.7,0.3")


@case(3, "fractions must lie in 0..1; found train=nan", "train=0.7")
def fractions_not_a_number(place: Place) -> list[object]:
    return _split(place, "--fractions", "train=nan,val=0.5")


@case(2, "--fractions or --folds; found both", "Pass one of them")
def fractions_and_folds(place: Place) -> list[object]:
    return _split(place, "--fractions", "train=0.7,val=0.3", "--folds", 5)


@case(3, "expected at least 2 folds; found 1", "Pass folds of 2 or more")
def folds_one(place: Place) -> list[object]:
    return _split(place, "--folds", 1)


@case(3, "each class needs a group in each of 3 splits; absent: bcc (1 groups) in", "Add lesions")
def split_too_few_lesions(place: Place) -> list[object]:
    lines = [f"{name},{name},{'bcc' if name == 'a' else 'nv'},40," for name in "abcdefgh"]
    return ["data", "split", place.table(*lines, images="abcdefgh"), "--out", "out.csv"]


@case(3, "2 splits need at least as many groups; found 1 groups", "add lesions")
def split_one_lesion(place: Place) -> list[object]:
    table = place.table("a,1,nv,40,", "b,1,nv,40,")
    return ["data", "split", table, "--out", "out.csv", "--fractions", "train=0.5,val=0.5"]


@case(3, "out.csv exists already", "--force")
def split_existing_out(place: Place) -> list[object]:
    place.write("out.csv", "precious\n")
    return _split(place)


@case(2, "a split table is a .csv file; found 'out.parquet'", "out.csv")
def split_wrong_ending(place: Place) -> list[object]:
    return ["data", "split", place.drawn, "--out", "out.parquet"]


@case(3, "cannot read or write out.csv: Is a directory", "Check the path")
def split_out_is_a_folder(place: Place) -> list[object]:
    (place / "out.csv").mkdir()
    return _split(place, "--force")


@case(3, "cannot read or write out: File exists", "Check the path")
def split_below_a_file(place: Place) -> list[object]:
    place.write("out", "a file")
    return ["data", "split", place.drawn, "--out", "out/split.csv", "--no-near-duplicates",
            "--allow-missing-classes"]  # fmt: skip


@case(3, "full exists and is not an empty folder", "Name a new folder")
def synth_into_full_folder(place: Place) -> list[object]:
    place.write("full/diary.txt", "precious")
    return ["data", "synth", "full", "--images", 30]


@case(3, "synthetic images of 8 px were asked for", "32 to 2048 px")
def synth_size_out_of_range(place: Place) -> list[object]:
    return ["data", "synth", "new", "--images", 30, "--size-px", 8]


@case(2, "Invalid value for '--images'", "")
def synth_no_images(place: Place) -> list[object]:
    return ["data", "synth", "new", "--images", 0]


@case(2, "a pack is a .parquet file; found 'out.zip'", "out.parquet")
def pack_wrong_ending(place: Place) -> list[object]:
    return ["data", "pack", place.drawn, "--out", "out.zip"]


@case(3, "out.parquet exists already", "--force")
def pack_existing_out(place: Place) -> list[object]:
    place.write("out.parquet", "precious")
    return ["data", "pack", place.drawn, "--out", "out.parquet"]


@case(2, "--resize-rule takes squash or shorter_side; found 'stretch'", "Pass one of these")
def pack_unknown_rule(place: Place) -> list[object]:
    return ["data", "pack", place.drawn, "--out", "out.parquet", "--resize-rule", "stretch"]


@case(2, "--format takes png or svg; found 'gif'", "Pass one of these")
def show_unknown_format(place: Place) -> list[object]:
    return ["data", "show", place.drawn, "--format", "gif"]


# --- Recipes and options ----------------------------------------------------------------------------------


@case(2, "no recipe 'quik'", "Did you mean 'quick'?")
def recipe_unknown(place: Place) -> list[object]:
    return place.train("--recipe", "quik")


@case(2, "recipe.toml is not valid TOML", "(at line 2, column")
def recipe_invalid_toml(place: Place) -> list[object]:
    return place.train("--recipe", place.write("recipe.toml", "[training]\nepochs = = 3\n"))


@case(2, "cannot read the recipe", "Pass a TOML text file")
def recipe_binary(place: Place) -> list[object]:
    return place.train("--recipe", place.write("recipe.toml", b"\xff\xfe\x00"))


@case(2, "training.epoch: no such key (did you mean training.epochs?)", "lentigo config --keys")
def recipe_unknown_key(place: Place) -> list[object]:
    return place.train("--recipe", place.write("recipe.toml", "[training]\nepoch = 3\n"))


@case(2, "trainin: no such key (did you mean training?)", "lentigo config --keys")
def recipe_unknown_section(place: Place) -> list[object]:
    return place.train("--recipe", place.write("recipe.toml", "[trainin]\nepochs = 3\n"))


@case(2, "training.batch_size: Input should be a valid integer", "found 'many'")
def recipe_wrong_type(place: Place) -> list[object]:
    return place.train("--set", "training.batch_size=many")


@case(2, "model.dropout: Input should be less than 1, found 1.5", "range and meaning")
def recipe_out_of_range(place: Place) -> list[object]:
    return place.train("--set", "model.dropout=1.5")


@case(2, "optimizer.weight_decay: Input should be", "found inf")
def recipe_infinite(place: Place) -> list[object]:
    return place.train("--set", "optimizer.weight_decay=inf")


@case(2, "--set takes section.key=value; found 'training.epochs'", "--set training.epochs=4")
def set_without_value(place: Place) -> list[object]:
    return place.train("--set", "training.epochs")


@case(2, "--set training.learning_rate: no such key (did you mean", "lentigo config --keys")
def set_unknown_key(place: Place) -> list[object]:
    return place.train("--set", "training.learning_rate=1")


@case(2, "optimizer.head_only_epochs must be less than training.epochs", "Correct them")
def head_only_too_long(place: Place) -> list[object]:
    return place.train("--set", "optimizer.head_only_epochs=1")


@case(2, "the class imbalance would be corrected twice", "Correct them")
def sampler_and_class_weights(place: Place) -> list[object]:
    return place.train("--set", "training.sampler=inverse", "--set", "loss.class_weights=inverse")


@case(2, "mixup and cutmix need loss.kind = cross_entropy", "Correct them")
def mixup_with_focal(place: Place) -> list[object]:
    return place.train("--set", "loss.kind=focal", "--set", "regularization.mixup_alpha=0.2")


@case(2, "Input should be 'train' or 'extra', found 'val'", "Correct them")
def val_in_train_splits(place: Place) -> list[object]:
    return place.train("--set", 'data.train_splits=["train","val"]')


@case(2, "training images do not fill one batch of 4096", "--set training.batch_size=")
def batch_larger_than_data(place: Place) -> list[object]:
    return place.train("--set", "training.batch_size=4096")


@case(2, "a time takes the form 90s, 30m or 1h30m; found '5 days'", "--time-limit 30m")
def time_limit_malformed(place: Place) -> list[object]:
    return place.train("--time-limit", "5 days")


@case(2, "'tpu' is not one of 'auto', 'cpu', 'cuda', 'mps'", "")
def accelerator_unknown(place: Place) -> list[object]:
    return place.train("--accelerator", "tpu")


@case(2, "--devices 64: found", "Pass fewer devices")
def more_gpus_than_there_are(place: Place) -> list[object]:
    return place.train("--accelerator", "cuda", "--devices", 64)


@case(2, "Invalid value for '--devices'", "")
def no_devices(place: Place) -> list[object]:
    return place.train("--devices", 0)


if not torch.backends.mps.is_available():

    @case(2, "--accelerator mps: this machine has none", "--accelerator cpu")
    def accelerator_absent(place: Place) -> list[object]:
        return place.train("--accelerator", "mps")


@case(2, "unknown architecture 'mobilenet_v4'", "Did you mean")
def architecture_unknown(place: Place) -> list[object]:
    return place.train("--set", "model.architecture=mobilenet_v4")


@case(2, "timm has no network 'mobilenet_v99'", "Try one of")
def architecture_unknown_to_timm(place: Place) -> list[object]:
    return place.train("--set", "model.architecture=timm:mobilenet_v99")


@case(2, "expected --recipe or --config; found both", "Pass one of them")
def recipe_and_config(place: Place) -> list[object]:
    return place.train("--recipe", "quick", "--config", place.write("config.toml", ""))


@case(2, "expected DATA", "lentigo train DATA")
def training_without_data(place: Place) -> list[object]:
    return ["train", "--recipe", "quick"]


@case(2, "No such option: --epochs", "")
def option_unknown(place: Place) -> list[object]:
    return place.train("--epochs", 3)


@case(2, "No such command 'trian'", "")
def command_unknown(place: Place) -> list[object]:
    return ["trian"]


@case(2, "--name takes a plain folder name; found '../escape'", "--runs-dir")
def run_name_with_folders(place: Place) -> list[object]:
    return place.train("--name", "../escape")


@case(3, "plain", "Check the path")
def runs_folder_is_a_file(place: Place) -> list[object]:
    return place.train("--runs-dir", place.write("plain", "a file"))


@case(2, "demo is not empty", "lentigo demo FOLDER")
def demo_folder_full(place: Place) -> list[object]:
    place.write("demo/diary.txt", "precious")
    return ["demo"]


@case(3, "demo", "Check the path")
def demo_folder_is_a_file(place: Place) -> list[object]:
    return ["demo", place.write("demo", "a file")]


# --- Weights ----------------------------------------------------------------------------------------------


def _weights(place: Place, architecture: str = "mobilenet_v2") -> dict[str, torch.Tensor]:
    return build_network(architecture, len(CLASS_CODES)).state_dict()


@case(3, "no weights file nowhere.safetensors", "imagenet` or `none")
def weights_missing(place: Place) -> list[object]:
    return place.train("--weights", "nowhere.safetensors")


@case(3, "expected .safetensors or .pth, found '.h5'", "Convert the file")
def weights_wrong_ending(place: Place) -> list[object]:
    return place.train("--weights", place.write("weights.h5", b"HDF"))


@case(3, "weights.safetensors is damaged", "Fetch the file again")
def weights_truncated_safetensors(place: Place) -> list[object]:
    save_file(_weights(place), place / "weights.safetensors")
    data = (place / "weights.safetensors").read_bytes()
    return place.train("--weights", place.write("weights.safetensors", data[: len(data) // 2]))


@case(3, "weights.pth", "Fetch the file again")
def weights_truncated_pth(place: Place) -> list[object]:
    torch.save(_weights(place), place / "weights.pth")
    data = (place / "weights.pth").read_bytes()
    return place.train("--weights", place.write("weights.pth", data[: len(data) // 2]))


@case(3, "weights.pth", "Fetch the file again")
def weights_text_named_pth(place: Place) -> list[object]:
    return place.train("--weights", place.write("weights.pth", "<html>404</html>"))


class _Opener:
    """Pickled, it opens a file for writing when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (self.path, "w"))


@case(3, "weights.pth holds more than tensors", "plain state dictionary")
def weights_pickle_with_code(place: Place) -> list[object]:
    place.write("weights.pth", pickle.dumps({"classifier.1.weight": _Opener(place / "hacked")}, protocol=2))
    return place.train("--weights", "weights.pth")


@case(3, "weights.pth holds more than tensors", "plain state dictionary")
def weights_zipped_pickle_with_code(place: Place) -> list[object]:
    torch.save({"classifier.1.weight": _Opener(place / "hacked")}, place / "weights.pth")
    return place.train("--weights", "weights.pth")


@case(3, "does not fit mobilenet_v2: it holds 0 of", "set model.architecture")
def weights_of_another_architecture(place: Place) -> list[object]:
    foreign = {f"encoder.{i}.weight": torch.zeros(2) for i in range(9)}
    save_file(foreign, place / "weights.safetensors")
    return place.train("--weights", "weights.safetensors")


@case(3, "does not fit mobilenet_v2:", "Pass weights of this architecture")
def weights_of_mobilenet_v3(place: Place) -> list[object]:
    save_file(_weights(place, "mobilenet_v3_large"), place / "weights.safetensors")
    return place.train("--weights", "weights.safetensors")


@case(3, "features.0.0.weight is (32, 1, 3, 3), expected (32, 3, 3, 3)", "Pass weights of this architecture")
def weights_mismatched_layer(place: Place) -> list[object]:
    changed = _weights(place) | {"features.0.0.weight": torch.zeros(32, 1, 3, 3)}
    save_file(changed, place / "weights.safetensors")
    return place.train("--weights", "weights.safetensors")


@case(3, "expected named tensors, found none", "Fetch the file again")
def weights_no_tensors(place: Place) -> list[object]:
    save_file({}, place / "weights.safetensors")
    return place.train("--weights", "weights.safetensors")


@case(3, "expected named tensors, found list", "Fetch the file again")
def weights_list(place: Place) -> list[object]:
    torch.save([torch.zeros(2)], place / "weights.pth")
    return place.train("--weights", "weights.pth")


@case(3, "weights that are not finite: features.0.0.weight", "Fetch the file again")
def weights_not_finite(place: Place) -> list[object]:
    changed = _weights(place) | {"features.0.0.weight": torch.full((32, 3, 3, 3), torch.nan)}
    save_file(changed, place / "weights.safetensors")
    return place.train("--weights", "weights.safetensors")


# --- Runs and checkpoints ---------------------------------------------------------------------------------


@case(3, "is not a run folder (no such folder)", "lentigo runs")
def run_missing(place: Place) -> list[object]:
    return ["evaluate", "runs/none"]


@case(3, "is not a run folder (no config.toml in it)", "lentigo runs")
def run_is_no_run(place: Place) -> list[object]:
    place.write("folder/notes.txt", "no run")
    return ["report", "folder"]


@case(3, "is not a run folder", "lentigo runs")
def resume_no_run(place: Place) -> list[object]:
    return ["train", "--resume", "runs/none"]


@case(2, "the run runs/old exists already", "--resume runs/old")
def run_name_taken(place: Place) -> list[object]:
    place.run()
    return place.train("--name", "old")


@case(3, "the recipe changed since the state was saved", "Start a new run")
def resume_edited_config(place: Place) -> list[object]:
    run = place.run()
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(re.sub(r"weight_decay = \S+", "weight_decay = 0.5", text))
    return ["train", "--resume", run]


@case(2, "config.toml is not valid TOML", "Correct that line")
def resume_broken_config(place: Place) -> list[object]:
    run = place.run()
    (run / "config.toml").write_text("half a [sentence")
    return ["train", "--resume", run]


@case(3, "no longer matches its digest: rows or splits were changed", "Restore the file")
def resume_edited_catalog(place: Place) -> list[object]:
    run = place.run()
    lines = (run / "catalog.csv").read_text().splitlines()
    (run / "catalog.csv").write_text("\n".join(lines[:-1]) + "\n")
    return ["train", "--resume", run]


@case(3, "no longer matches its digest", "Restore the file")
def evaluate_edited_catalog(place: Place) -> list[object]:
    run = place.run()
    text = (run / "catalog.csv").read_text()
    (run / "catalog.csv").write_text(text.replace(",mel,", ",nv,", 1))
    return ["evaluate", run]


@case(3, "catalog.csv", "train")
def evaluate_binary_catalog(place: Place) -> list[object]:
    run = place.run()
    (run / "catalog.csv").write_bytes(b"\xff\xfe\x00 no table")
    return ["evaluate", run]


@case(3, "last.state is damaged", "Restore it, or train again")
def resume_corrupt_state(place: Place) -> list[object]:
    run = place.run()
    state = run / "checkpoints" / "last.state"
    state.write_bytes(state.read_bytes()[:5000])
    return ["train", "--resume", run]


@case(3, "last.state does not fit this run", "new --name")
def resume_foreign_state(place: Place) -> list[object]:
    run = place.run()
    save_file({"x": torch.zeros(2)}, run / "checkpoints" / "last.state", metadata={"progress": '{"epoch": 1}'})
    return ["train", "--resume", run]


@case(2, "--resume continues a run exactly as it was", "Drop the other options")
def resume_with_overrides(place: Place) -> list[object]:
    return ["train", "--resume", place.run(), "--set", "training.epochs=9"]


@case(2, "--resume continues a run exactly as it was", "Drop the other options")
def resume_with_time_limit(place: Place) -> list[object]:
    return ["train", "--resume", place.run(), "--time-limit", "5m"]


@case(2, "another process is working in", "Wait for it")
def resume_locked_run(place: Place) -> list[object]:
    run = place.run()
    place.held.append((run / ".lock").open("a"))
    fcntl.flock(place.held[-1], fcntl.LOCK_EX)
    return ["train", "--resume", run]


@case(2, "another process is working in", "Wait for it")
def evaluate_locked_run(place: Place) -> list[object]:
    run = place.run()
    place.held.append((run / ".lock").open("a"))
    fcntl.flock(place.held[-1], fcntl.LOCK_EX)
    return ["evaluate", run]


@case(2, "--split takes val or test; found 'train'", "training images would say nothing")
def evaluate_train(place: Place) -> list[object]:
    return ["evaluate", place.run(), "--split", "train"]


@case(2, "Invalid value for '--resamples'", "")
def evaluate_too_few_resamples(place: Place) -> list[object]:
    return ["evaluate", place.run(), "--resamples", 3]


@case(3, "best.safetensors is damaged", "Restore it, or train again")
def evaluate_corrupt_weights(place: Place) -> list[object]:
    best = place.run() / "checkpoints" / "best.safetensors"
    best.write_bytes(best.read_bytes()[:100_000])
    return ["evaluate", "runs/old"]


@case(3, "has no chosen weights yet", "lentigo train --resume")
def evaluate_missing_weights(place: Place) -> list[object]:
    (place.run() / "checkpoints" / "best.safetensors").unlink()
    return ["evaluate", "runs/old"]


@case(3, "holds weights but no Lentigo model description", "--weights")
def evaluate_foreign_weights(place: Place) -> list[object]:
    save_file(_weights(place), place.run() / "checkpoints" / "best.safetensors")
    return ["evaluate", "runs/old"]


@case(3, "holds weights but no Lentigo model description", "--weights")
def evaluate_foreign_metadata(place: Place) -> list[object]:
    save_file(
        _weights(place),
        place.run() / "checkpoints" / "best.safetensors",
        metadata={"note": "[draft", "x": ""},
    )
    return ["evaluate", "runs/old"]


def _with_description(place: Place, **changes: object) -> list[object]:
    """The command that judges a run whose best weights are described otherwise."""
    best = place.run() / "checkpoints" / "best.safetensors"
    description = {"architecture": "mobilenet_v2", "preprocess": {}, "format_version": 1, **changes}
    save_file(load_file(best), best, metadata={"lentigo": json.dumps(description)})
    return ["evaluate", "runs/old"]


@case(3, "has format version 99; this version reads 1", "Update Lentigo")
def evaluate_future_format(place: Place) -> list[object]:
    return _with_description(place, format_version=99)


@case(3, "unusable model description", "Train or export it again")
def evaluate_unknown_description(place: Place) -> list[object]:
    return _with_description(place, architecture=3)


@case(3, "knows the classes cat, dog", "seven classes")
def evaluate_other_classes(place: Place) -> list[object]:
    return _with_description(place, classes=["cat", "dog"])


@case(3, "layers do not fit", "Train it again")
def evaluate_mismatched_weights(place: Place) -> list[object]:
    return _with_description(place, architecture="mobilenet_v3_large")


@case(3, "holds weights but no Lentigo model description", "--weights")
def evaluate_description_is_a_list(place: Place) -> list[object]:
    best = place.run() / "checkpoints" / "best.safetensors"
    save_file(load_file(best), best, metadata={"lentigo": "[1, 2]"})
    return ["evaluate", "runs/old"]


@case(3, "metrics.json is damaged", "lentigo evaluate")
def report_corrupt_metrics(place: Place) -> list[object]:
    run = place.run()
    (run / "metrics.json").write_text('{"val": {')
    return ["report", run]


@case(3, "missing or wrong there", "lentigo evaluate")
def report_foreign_metrics(place: Place) -> list[object]:
    run = place.run()
    (run / "metrics.json").write_text('{"val": {"accuracy": 1}}')
    return ["report", run]


@case(3, "metrics.json is damaged", "lentigo evaluate")
def report_metrics_are_a_list(place: Place) -> list[object]:
    run = place.run()
    (run / "metrics.json").write_text("[]")
    return ["report", run]


@case(3, "metrics.json is damaged", "lentigo evaluate")
def report_binary_metrics(place: Place) -> list[object]:
    run = place.run()
    (run / "metrics.json").write_bytes(b"\xff\xfe")
    return ["report", run]


@case(3, "metrics.json is damaged", "lentigo evaluate")
def evaluate_corrupt_metrics(place: Place) -> list[object]:
    run = place.run()
    (run / "metrics.json").write_text('{"val": {')
    return ["evaluate", run, "--resamples", 100]


@case(3, "log.csv is damaged", "Restore it")
def report_corrupt_log(place: Place) -> list[object]:
    run = place.run()
    (run / "log.csv").write_text("epoch,train_loss\n1,low\n")
    return ["report", run]


@case(3, "environment.json is damaged", "Restore it")
def report_corrupt_environment(place: Place) -> list[object]:
    run = place.run()
    (run / "environment.json").write_text("{")
    return ["report", run]


@case(3, "predictions/val.csv", "lentigo evaluate")
def report_corrupt_predictions(place: Place) -> list[object]:
    run = place.run()
    (run / "predictions" / "val.csv").write_text("image_id,guess\n")
    return ["report", run]


@case(3, "predictions", "lentigo evaluate")
def report_foreign_predictions(place: Place) -> list[object]:
    run = place.run()
    table = run / "predictions" / "val.csv"
    table.write_text(table.read_text().replace("SYNTH_", "OTHER_"))
    return ["report", run]


@case(3, "images cannot be read", "lentigo data check")
def evaluate_images_gone(place: Place) -> list[object]:
    run = place.run()
    text = (run / "catalog.csv").read_text()
    (run / "catalog.csv").write_text(text.replace("/images/SYNTH", "/gone/SYNTH"))
    return ["evaluate", run]


@case(3, "the run's catalogue has no rows in test", "Judge another split")
def evaluate_split_without_rows(place: Place) -> list[object]:
    table = place.split_with(",test,", ",train,")
    assert place.lentigo(*place.train(data=table)).code == 0
    return ["evaluate", "runs/new", "--split", "test"]


@case(3, "was not judged yet", "lentigo evaluate")
def report_not_judged(place: Place) -> list[object]:
    run = place.run()
    (run / "metrics.json").unlink()
    return ["report", run]


@case(3, "test_looks.json is damaged", "Restore")
def evaluate_corrupt_looks(place: Place) -> list[object]:
    run = place.run()
    (run / "test_looks.json").write_text("[half")
    return ["evaluate", run, "--split", "test"]


# --- The test over the table ------------------------------------------------------------------------------


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file and folder; an empty lock is no result."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    } | {str(path.relative_to(folder)): (0, 0) for path in folder.rglob("*") if path.is_dir()}


@pytest.fixture
def place(
    tmp_path: Path,
    drawn: Path,
    split: Path,
    tiny: tuple[str, ...],
    lentigo: Callable[..., Any],
    request: pytest.FixtureRequest,
) -> Place:
    """An empty folder with the shared drawings; the trained run is made for those cases that ask for it."""
    return Place(tmp_path, drawn, split, lambda: request.getfixturevalue("trained"), tiny, lentigo, [])


@pytest.mark.parametrize("broken", CASES, ids=lambda broken: broken.name)
def test_bad_input(broken: Case, place: Place, lentigo) -> None:  # type: ignore[no-untyped-def]
    command = broken.make(place)
    before = _files(place.folder)
    said = lentigo(*command)
    flat = " ".join(said.err.replace("│", " ").split())
    text = said.out if broken.on_stdout else flat
    assert "Traceback" not in said.err, said.err
    assert said.code == broken.code, said
    assert broken.found in text, text
    assert broken.remedy in text, text
    assert _files(place.folder) == before, "something was written"
    errors = len(re.findall(r"^error: ", said.err, re.MULTILINE))
    if broken.on_stdout:
        assert (errors, said.err.strip()) == (0, "")
        assert json.loads(said.out)["has_errors"]
    elif broken.remedy:
        assert errors == 1, said.err
        assert len(re.findall(r"^  remedy: ", said.err, re.MULTILINE)) == 1, said.err
    else:
        assert errors == 0, "typer has its own form"
        assert said.err.count("╭─ Error") == 1, said.err
    assert broken.on_stdout or not said.out, "messages belong on stderr"


def test_table_is_long_enough() -> None:
    """The project promises 45 kinds at least."""
    assert len({broken.name for broken in CASES}) == len(CASES) >= 45


def test_pickled_code_would_have_run(tmp_path: Path) -> None:
    """The files of the two pickle cases do open `hacked` when they are unpickled without a guard."""
    pickle.loads(pickle.dumps(_Opener(tmp_path / "hacked"), protocol=2)).close()
    assert (tmp_path / "hacked").exists()


def test_error_as_json(lentigo) -> None:  # type: ignore[no-untyped-def]
    said = lentigo("data", "check", "nowhere.csv", "--json")
    assert said.code == said.json["exit_code"] == 3
    assert said.json["error"] == "no data set at nowhere.csv"
    assert "HAM10000 CSV" in said.json["remedy"]
    assert said.err.startswith("error: no data set")
