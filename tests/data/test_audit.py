"""The audit finds planted leaks, and finds nothing where nothing is planted."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import hypergeom
from sklearn.naive_bayes import CategoricalNB

from lentigo.core.errors import DataError
from lentigo.core.taxonomy import CLASS_CODES, NUM_CLASSES
from lentigo.data.audit import (
    Audit,
    _image_splits,
    audit_source,
    leaked_shares,
)
from lentigo.data.catalog import Catalog, Row
from lentigo.data.file_facts import FOLDS, _cross_validated, file_facts, predictability

HEADER = ("image_id", "lesion_id", "dx", "split", "file")


def picture(seed: int, size: tuple[int, int] = (96, 96)) -> Image.Image:
    """Coloured texture at two scales, different for each seed."""
    rng = np.random.default_rng(seed)
    total = np.full((size[1], size[0], 3), 128.0)
    for cells in (6, 30):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += 0.3 * (np.asarray(noise.resize(size, Image.Resampling.BICUBIC)) - 128.0)
    return Image.fromarray(np.clip(total, 0, 255).astype(np.uint8))


def write_table(folder: Path, rows: list[tuple[str, str, str, str, str]]) -> Path:
    """A HAM10000-like table."""
    table = folder / "table.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([HEADER, *rows])
    return table


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """42 lesions of one image, 28 train, 7 val and 7 test."""
    rows = []
    for i in range(42):
        picture(i).save(tmp_path / f"i{i}.png")
        split = "train" if i < 28 else ("val", "test")[i % 2]
        rows.append((f"i{i}", f"lesion{i}", CLASS_CODES[i % NUM_CLASSES], split, f"i{i}.png"))
    return write_table(tmp_path, rows)


def change(source: Path, **rows: tuple[str, str, str, str, str]) -> Path:
    """Rows replaced or added by image id."""
    with source.open(encoding="utf-8", newline="") as stream:
        old = {row[0]: tuple(row) for row in list(csv.reader(stream))[1:]}
    return write_table(source.parent, list((old | rows).values()))  # type: ignore[arg-type]


def torn(audit: Audit) -> dict[str, int | None]:
    return {one.kind: one.count for one in audit.torn}


def rows_of(labels: np.ndarray, lesions: np.ndarray, **columns: list[str]) -> Catalog:
    """A catalogue of labels (N,) and lesion numbers (N,); files need not exist."""
    names = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    names = names or [{} for _ in labels]
    return Catalog(
        tuple(
            Row(f"i{i}", Path(f"i{i}.png"), int(label), f"l{lesion:05d}", **more)
            for i, (label, lesion, more) in enumerate(zip(labels, lesions, names, strict=True))
        )
    )


def test_a_clean_source_has_no_leaks(source: Path) -> None:
    found = audit_source(source, permutations=30)
    assert torn(found) == {"lesions": 0, "near-duplicates": 0}
    assert not found.has_leaks
    assert found.images_per_split == {"train": 28, "val": 7, "test": 7}
    assert found.given is not None
    assert found.given.overall.value == 0.0
    assert found.by_image.overall.value == 0.0, "one image a lesion cannot leak"
    assert not any(one.tells for one in found.facts if one.fact != "bytes_per_pixel")
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["has_leaks"] is False
    assert Audit.model_validate(found.model_dump()) == found


def test_lesions_and_pictures_on_two_sides(source: Path) -> None:
    folder = source.parent
    picture(3).rotate(90).save(folder / "again.png")
    source = change(source, i40=("i40", "lesion2", "bkl", "val", "i40.png"),
                    again=("again", "other", CLASS_CODES[3], "test", "again.png"))  # fmt: skip
    found = audit_source(source, permutations=20)
    assert torn(found) == {"lesions": 1, "near-duplicates": 1}
    assert found.torn[0].examples == ("lesion2 in train+val",)
    assert found.torn[1].examples == ("i3 (train) ~ again (test)",)
    assert found.has_leaks
    assert found.given is not None
    assert found.given.overall.value == pytest.approx(1 / 15)
    quick = audit_source(source, permutations=20, near_duplicates=False)
    assert torn(quick) == {"lesions": 1, "near-duplicates": None}


def test_extra_is_training_data(source: Path) -> None:
    found = audit_source(change(source, i1=("i1", "lesion0", "akiec", "extra", "i1.png")), permutations=20)
    assert not found.has_leaks
    found = audit_source(change(source, i1=("i1", "lesion41", "akiec", "extra", "i1.png")), permutations=20)
    assert found.torn[0].examples == ("lesion41 in test+train",)
    assert found.given is not None
    assert found.given.overall.value == pytest.approx(1 / 14)


def test_without_a_split(source: Path) -> None:
    with source.open(encoding="utf-8", newline="") as stream:
        rows = [(*row[:3], "", row[4]) for row in list(csv.reader(stream))[1:]]
    found = audit_source(write_table(source.parent, rows), near_duplicates=False, permutations=20)
    assert (found.given, found.images_per_split, found.has_leaks) == (None, {"none": 42}, False)
    assert (found.by_image.n_train, found.by_image.n_held_out) == (30, 12)


def test_only_test_rows_are_audited_without_facts(source: Path) -> None:
    with source.open(encoding="utf-8", newline="") as stream:
        rows = [(*row[:3], "test", row[4]) for row in list(csv.reader(stream))[1:]]
    found = audit_source(write_table(source.parent, rows), near_duplicates=False, permutations=20)
    assert all((one.n_images, one.p) == (0, None) for one in found.facts)


def test_facts_of_test_files_are_left_out(source: Path) -> None:
    found = audit_source(source, near_duplicates=False, permutations=20)
    assert {one.n_images for one in found.facts} == {35}


def test_class_folders_have_no_lesion_ids_and_are_no_fact(tmp_path: Path) -> None:
    for i in range(14):
        folder = tmp_path / "set" / "train" / CLASS_CODES[i % 7]
        folder.mkdir(parents=True, exist_ok=True)
        picture(i).save(folder / f"i{i}.jpg")
    found = audit_source(tmp_path / "set", near_duplicates=False, permutations=20)
    assert found.n_without_lesion_id == 14
    assert next(one for one in found.facts if one.fact == "folder").n_levels == 1


def test_no_usable_rows(tmp_path: Path) -> None:
    table = write_table(tmp_path, [("i", "l", "nv", "", "gone.png")])
    with pytest.raises(DataError, match="no usable rows"):
        audit_source(table)


def test_facts_of_files(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Maker", "Model 1"
    (tmp_path / "clinic").mkdir()
    picture(0, (120, 90)).save(tmp_path / "clinic" / "a.jpg", exif=exif, quality=95)
    picture(1, (80, 80)).save(tmp_path / "b.JPG", "JPEG", quality=20)
    other = Image.Exif()
    other[0x0131] = "Software"
    picture(2, (80, 80)).save(tmp_path / "c.png", exif=other)
    (tmp_path / "d.jpg").write_bytes(b"\xff\xd8\xff broken")
    rows = [Row(name, tmp_path / name, 0, name) for name in ("clinic/a.jpg", "b.JPG", "c.png", "d.jpg")]
    found = file_facts(Catalog(tuple(rows)))
    assert found["size"] == ["120x90", "80x80", "80x80", "unknown"]
    assert found["aspect"] == ["1.33", "1.00", "1.00", "unknown"]
    assert found["ending"] == [".jpg", ".jpg", ".png", ".jpg"]
    assert found["camera"] == ["Maker Model 1", "no EXIF", "EXIF", "unknown"]
    assert found["folder"][0] == f"{found['folder'][1]}/clinic"
    levels = found["bytes_per_pixel"]
    assert levels[3] == "unknown"
    assert int(levels[1]) < int(levels[0]) < int(levels[2])


def test_members_of_containers_have_a_size_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", train_images=np.zeros((2, 20, 30, 3), np.uint8))
    rows = [Row(f"i{i}", tmp_path / "set.npz", 0, f"i{i}", member=f"train_images/{i}") for i in range(2)]
    found = file_facts(Catalog(tuple(rows)))
    assert found["size"] == ["30x20", "30x20"]
    assert (found["bytes_per_pixel"], found["camera"]) == (["unknown"] * 2, ["unknown"] * 2)


def test_a_telling_fact_is_found_and_a_silent_one_is_not() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(NUM_CLASSES, size=300)
    telling = np.where(rng.random(300) < 0.5, labels, rng.integers(NUM_CLASSES, size=300))
    facts = {
        "telling": [str(level) for level in telling],
        "silent": [str(level) for level in rng.integers(4, size=300)],
        "constant": ["same"] * 300,
    }
    found = {one.fact: one for one in predictability(rows_of(labels, np.arange(300)), facts, permutations=100)}
    assert found["telling"].tells
    assert found["all"].tells
    assert found["telling"].balanced_accuracy > 0.45 > 0.25 > found["telling"].chance_high
    assert found["telling"].p == pytest.approx(1 / 101)
    assert not found["silent"].tells
    assert found["silent"].chance == pytest.approx(1 / 7, abs=0.03)
    assert (found["constant"].n_levels, found["constant"].balanced_accuracy, found["constant"].p) == (1, None, None)


def test_repeat_photographs_of_a_lesion_are_no_rule() -> None:
    """Each lesion has its own camera: knowing it tells the class of its other images, but of no other lesion."""
    rng = np.random.default_rng(1)
    p_values = []
    for _ in range(10):
        lesions = np.repeat(np.arange(60), 5)
        labels = rng.integers(NUM_CLASSES, size=60)[lesions]
        facts = {"camera": [str(level) for level in rng.integers(8, size=60)[lesions]]}
        p_values.append(predictability(rows_of(labels, lesions), facts, permutations=60)[0].p)
    assert np.mean(p_values) > 0.2
    assert sum(p < 0.05 for p in p_values) <= 2


def test_p_is_uniform_where_nothing_tells() -> None:
    rng = np.random.default_rng(2)
    p_values = []
    for seed in range(30):
        labels = rng.integers(3, size=80)
        facts = {"x": [str(level) for level in rng.integers(3, size=80)]}
        p_values.append(predictability(rows_of(labels, np.arange(80)), facts, permutations=39, seed=seed)[0].p)
    assert 0.3 < np.mean(p_values) < 0.7
    assert sum(p <= 0.05 for p in p_values) <= 5


@pytest.mark.parametrize("columns", [1, 3])
def test_naive_bayes_is_scikit_learns(columns: int) -> None:
    rng = np.random.default_rng(columns)
    labels = rng.integers(NUM_CLASSES, size=200)
    levels = [np.minimum(rng.integers(2 + k, size=200) + (labels > 3), 1 + k) for k in range(columns)]
    folds = np.arange(200) % FOLDS
    right = np.empty(200)
    for fold in range(FOLDS):
        inside = folds == fold
        scores = np.zeros((inside.sum(), NUM_CLASSES))
        for column in levels:
            # Here the smoothing is one image over all levels of a fact, scikit-learn's alpha is per level.
            size = int(column.max()) + 1
            model = CategoricalNB(alpha=1.0 / size, fit_prior=False, min_categories=size)
            model.fit(column[~inside, None], labels[~inside])
            scores += model.predict_joint_log_proba(column[inside, None])
        best = scores > scores.max(axis=1, keepdims=True) - 1e-9
        right[inside] = best[np.arange(inside.sum()), labels[inside]] / best.sum(axis=1)
    expected = np.mean([right[labels == c].mean() for c in range(NUM_CLASSES)])
    assert _cross_validated(labels, levels, folds) == pytest.approx(expected, abs=1e-12)


def test_ties_count_as_shares() -> None:
    labels = np.array([0, 1, 2, 3] * 10)
    assert _cross_validated(labels, [np.zeros(40, np.int64)], np.arange(40) // 8) == pytest.approx(0.25)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_leaked_shares_are_counted_right(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 30))
    draw = st.lists(st.integers(0, 6), min_size=count, max_size=count)
    lesions, labels = np.array(data.draw(draw)), np.array(data.draw(draw))
    names = st.lists(st.sampled_from(["train", "val", "test", ""]), min_size=count, max_size=count)
    sides = np.array([data.draw(names), data.draw(names)])
    found = leaked_shares(rows_of(labels, lesions), sides)
    for label, code in enumerate(CLASS_CODES):
        shares, counts = [], []
        for split in sides:
            train = {lesions[i] for i in range(count) if split[i] == "train"}
            held = [i for i in range(count) if split[i] in ("val", "test") and labels[i] == label]
            counts.append(len(held))
            shares += [np.mean([lesions[i] in train for i in held])] if held else []
        one = found.per_class[code]
        assert one.n == pytest.approx(np.mean(counts))
        assert one.value == (pytest.approx(np.mean(shares)) if shares else None)
        assert one.sd == (pytest.approx(np.std(shares, ddof=1)) if len(shares) == 2 else None)


def test_a_split_by_image_leaks_what_probability_says() -> None:
    """With k images a lesion, a held-out image's lesion is in train unless all of its others are held out too."""
    lesions = np.repeat(np.arange(200), 3)
    catalog = rows_of(np.zeros(600, np.int64), lesions)
    sides = np.repeat(["train", "val", "test"], [420, 90, 90])
    found = leaked_shares(catalog, _image_splits(sides, True, 50, 0))
    expected = 1.0 - hypergeom.pmf(0, 599, 420, 2)
    assert found.overall.value == pytest.approx(expected, abs=0.01)
    assert found.overall.sd > 0.0


def test_splits_by_image_keep_the_sizes() -> None:
    sides = np.array(["train"] * 5 + ["val"] * 3 + [""] * 2 + ["test"])
    for names in _image_splits(sides, True, 5, 1):
        assert Counter(names.tolist()) == Counter(sides.tolist())
        np.testing.assert_array_equal(names == "", sides == "")
    assert not np.array_equal(*_image_splits(sides, True, 2, 1))
    np.testing.assert_array_equal(_image_splits(sides, True, 5, 1), _image_splits(sides, True, 5, 1))


def test_patients_and_groups_on_two_sides(tmp_path: Path) -> None:
    rows = []
    for i in range(8):
        picture(i).save(tmp_path / f"i{i}.png")
        row = Row(f"i{i}", tmp_path / f"i{i}.png", i % 2, f"l{i}", patient_id=f"p{i // 2}", group_id=f"g{i // 4}")
        rows.append(replace(row, split="train" if i < 5 else "val"))
    table = Catalog(tuple(rows)).to_csv(tmp_path / "split.csv")
    found = audit_source(table, near_duplicates=False, permutations=20)
    assert torn(found) == {"lesions": 0, "patients": 1, "groups": 1, "near-duplicates": None}
    assert found.torn[1].examples == ("p2 in train+val",)
