"""The formats: what is in them, that they come back, that nothing is half-written, and that a torn file goes on."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from lentigo.core.errors import DataError, MissingExtraError
from lentigo.core.taxonomy import CLASS_CODES, ISIC_2018_COLUMNS
from lentigo.deploy.classifier import Classifier
from lentigo.deploy.engine import Failure, Outcome
from lentigo.deploy.html_page import MAX_PICTURES, write_html
from lentigo.deploy.inputs import Item
from lentigo.deploy.outputs import NOTICE, Source, check_isic_ids, write_isic, write_json, write_parquet
from lentigo.deploy.row_files import COLUMNS, RowFormat, read_done, write_rows
from lentigo.evaluation.isic_csv import read_predictions

COUNT = 12
BAD = 5
ODD = 'im/é "quoted", <b>&amp;.png'


@pytest.fixture(scope="module")
def classifier(tiny_model: Path) -> Classifier:
    return Classifier.load(tiny_model, threads=1)


@pytest.fixture(scope="module")
def source(classifier: Classifier) -> Source:
    return Source.of(classifier)


@pytest.fixture(scope="module")
def outcomes(classifier: Classifier) -> tuple[Outcome, ...]:
    """12 images: number 5 failed, number 2 has a name with all that formats use, every third is of another kind."""
    pixels = np.random.default_rng(2).integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8)
    names = [ODD if number == 2 else f"im/{number:02d}.png" for number in range(COUNT)]
    items = [Item(name, f"id{number}", Path(name)) for number, name in enumerate(names)]
    flags = [("blur", "size_px") if number == 4 else () for number in range(COUNT)]
    assert classifier.outlier_limit is not None
    distances = np.float32(classifier.outlier_limit.threshold) * np.resize(np.float32([2.0, 0.5, 0.9]), COUNT)
    found = classifier.decide(names, classifier.logits(pixels), flags, distances)
    failed = Failure(names[BAD], f"{names[BAD]} is no image, <i>alas</i>", "Copy it again.")
    return tuple(
        Outcome(item, failed) if number == BAD else Outcome(item, answer, square)
        for number, (item, answer, square) in enumerate(zip(items, found, pixels, strict=True))
    )


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_csv_holds_the_answers(outcomes: tuple[Outcome, ...], source: Source, tmp_path: Path) -> None:
    write_rows(outcomes, tmp_path / "a.csv", source, "csv")
    rows = read_csv(tmp_path / "a.csv")
    assert tuple(rows[0]) == COLUMNS
    assert [row["name"] for row in rows] == [outcome.item.name for outcome in outcomes]
    for number, (row, outcome) in enumerate(zip(rows, outcomes, strict=True)):
        answer = outcome.answer
        assert (row["model"], row["variant"], row["views"]) == ("tiny", "fp32", "1")
        if isinstance(answer, Failure):
            assert number == BAD
            assert row["error"] == answer.error
            assert row["label"] == row["p_mel"] == row["abstain"] == ""
            continue
        probs = [float(row[f"p_{code}"]) for code in CLASS_CODES]
        assert probs == pytest.approx([answer.probs[code] for code in CLASS_CODES], abs=6e-7)
        assert float(row["malignant_risk"]) == pytest.approx(answer.malignant_risk, abs=6e-7)
        assert (row["label"], row["error"]) == (answer.label, "")
        assert row["abstain"] == ("yes" if answer.abstain else "no")
        assert tuple(row["conformal_set"].split()) == answer.conformal_set
        assert row["outlier"] == ("yes" if number % 3 == 0 else "no")
    assert rows[4]["quality_flags"] == "blur size_px"


def test_csv_has_no_cell_that_a_spreadsheet_runs(outcomes: tuple[Outcome, ...], source: Source, tmp_path: Path) -> None:
    evil = Failure("./=1+1.png", "=1+1.png is no image", "@again")
    write_rows([Outcome(Item(evil.name, "=1+1", Path("=1+1.png")), evil)], tmp_path / "a.csv", source, "csv")
    (row,) = read_csv(tmp_path / "a.csv")
    assert row["error"] == "'=1+1.png is no image"
    assert not [cell for cell in row.values() if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


def test_jsonl_holds_every_number_exactly(outcomes: tuple[Outcome, ...], source: Source, tmp_path: Path) -> None:
    write_rows(outcomes, tmp_path / "a.jsonl", source, "jsonl")
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == COUNT
    for row, outcome in zip(rows, outcomes, strict=True):
        assert row["notice"] == NOTICE
        if isinstance(outcome.answer, Failure):
            assert (row["error"], row["remedy"]) == (outcome.answer.error, outcome.answer.remedy)
        else:
            assert {name: row[name] for name in outcome.answer.as_dict()} == outcome.answer.as_dict()


@pytest.mark.parametrize("row_format", ["csv", "jsonl"])
def test_a_file_torn_anywhere_goes_on_to_the_same_bytes(
    outcomes: tuple[Outcome, ...], source: Source, tmp_path: Path, row_format: RowFormat
) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    write_rows(outcomes, whole, source, row_format)
    data = whole.read_bytes()
    ends = [place + 1 for place, byte in enumerate(data) if byte == 10]
    for length in (0, 5, *(end + shift for end in ends for shift in (-1, 0, 7) if end + shift <= len(data))):
        torn.write_bytes(data[:length])
        done = read_done(torn, source, row_format)
        lines = data[:length].count(b"\n") - (row_format == "csv")
        assert len(done) == max(0, lines)
        left = [outcome for outcome in outcomes if outcome.item.name not in done]
        write_rows(left, torn, source, row_format, resume=True)
        assert torn.read_bytes() == data


def test_what_is_written_before_an_interruption_stays(
    outcomes: tuple[Outcome, ...], source: Source, tmp_path: Path
) -> None:
    def interrupted() -> Iterator[Outcome]:
        yield from outcomes[:3]
        assert len(read_csv(tmp_path / "a.csv")) == 3, "rows wait in memory"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(interrupted(), tmp_path / "a.csv", source, "csv")
    assert read_done(tmp_path / "a.csv", source, "csv") == {
        outcome.item.name: not isinstance(outcome.answer, Failure) for outcome in outcomes[:3]
    }


@pytest.mark.parametrize("row_format", ["csv", "jsonl"])
@pytest.mark.parametrize(
    "content", [b"image_id,label\na,nv\n", b"dear diary", b"{}\n", b'{"name": "x"}\n', b"\xff\xfe\0\n", b"\n"]
)
def test_files_of_others_are_refused_and_left_alone(
    source: Source, tmp_path: Path, row_format: RowFormat, content: bytes
) -> None:
    path = tmp_path / "precious"
    path.write_bytes(content)
    with pytest.raises(DataError, match="precious"):
        read_done(path, source, row_format)
    assert path.read_bytes() == content


@pytest.mark.parametrize("row_format", ["csv", "jsonl"])
def test_rows_of_another_model_are_never_continued(
    outcomes: tuple[Outcome, ...], source: Source, tiny_model: Path, tmp_path: Path, row_format: RowFormat
) -> None:
    path = tmp_path / "rows"
    write_rows(outcomes[:2], path, source, row_format)
    path.write_bytes(path.read_bytes() + b"torn")
    before = path.read_bytes()
    others = (
        Classifier.load(tiny_model, variant="int8"),
        Classifier.load(tiny_model, views=4),
        Classifier.load(tiny_model, quality=False),
    )
    for other in others:
        with pytest.raises(DataError, match="was answered by model tiny, variant fp32, views 1"):
            read_done(path, Source.of(other), row_format)
        assert path.read_bytes() == before


def test_nothing_is_overwritten(outcomes: tuple[Outcome, ...], source: Source, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("mine")
    with pytest.raises(FileExistsError):
        write_rows(outcomes, tmp_path / "a.csv", source, "csv")
    assert (tmp_path / "a.csv").read_text() == "mine"


def test_json_is_one_document(outcomes: tuple[Outcome, ...], source: Source, tmp_path: Path) -> None:
    write_json(outcomes, tmp_path / "a.json", source, synthetic=True)
    found = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert (found["notice"], found["synthetic"], found["model"]) == (NOTICE, True, "tiny")
    assert (found["images"], found["failed"]) == (COUNT, 1)
    assert [row["name"] for row in found["predictions"]] == [outcome.item.name for outcome in outcomes]
    write_json([], tmp_path / "none.json", source, synthetic=False)
    assert json.loads((tmp_path / "none.json").read_text())["predictions"] == []


def test_isic_is_read_by_the_scorer(outcomes: tuple[Outcome, ...], tmp_path: Path) -> None:
    write_isic(outcomes, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().splitlines()[0] == ",".join(("image", *ISIC_2018_COLUMNS))
    good = [outcome for outcome in outcomes if not isinstance(outcome.answer, Failure)]
    probs = read_predictions(tmp_path / "a.csv", [outcome.item.image_id for outcome in good])
    for row, outcome in zip(probs, good, strict=True):
        assert row == pytest.approx([outcome.answer.probs[code] for code in CLASS_CODES], abs=6e-7)  # type: ignore[union-attr]


def test_isic_refuses_ids_of_several_images_and_formulas(outcomes: tuple[Outcome, ...]) -> None:
    items = [outcome.item for outcome in outcomes]
    check_isic_ids(items)
    with pytest.raises(DataError, match="1 ids stand for several images: id3"):
        check_isic_ids([*items, Item("other/id3.png", "id3", Path("other/id3.png"))])
    with pytest.raises(DataError, match="formulas"):
        check_isic_ids([Item("./=a.png", "=a", Path("=a.png"))])


def test_parquet_has_typed_columns(outcomes: tuple[Outcome, ...], source: Source, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_parquet(outcomes, tmp_path / "a.parquet", source, synthetic=False)
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table.schema.metadata[b"notice"] == NOTICE.encode()
    rows = table.to_pylist()
    assert rows[BAD]["label"] is rows[BAD]["p_mel"] is rows[BAD]["abstain"] is None
    assert rows[BAD]["error"].endswith("<i>alas</i>")
    assert rows[4]["quality_flags"] == ["blur", "size_px"]
    for row, outcome in zip(rows, outcomes, strict=True):
        if not isinstance(outcome.answer, Failure):
            assert {code: row[f"p_{code}"] for code in CLASS_CODES} == outcome.answer.probs
            assert row["outlier"] is outcome.answer.outlier
            assert tuple(row[f"logit_{code}"] for code in CLASS_CODES) == outcome.answer.logits


def test_parquet_without_pyarrow(outcomes: tuple[Outcome, ...], source: Source, tmp_path: Path) -> None:
    with mock.patch.dict(sys.modules, {"pyarrow": None}), pytest.raises(MissingExtraError, match="pyarrow"):
        write_parquet(outcomes, tmp_path / "a.parquet", source, synthetic=False)
    assert not list(tmp_path.iterdir())


class Page(HTMLParser):
    """Tags, addresses and text of a page; open tags must be closed."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_loads_nothing(outcomes: tuple[Outcome, ...], source: Source, tmp_path: Path) -> None:
    write_html(outcomes, tmp_path / "a.html", source, synthetic=True)
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("tr") == 1 + 7 + 1 + COUNT
    assert page.tags.count("img") == COUNT - 1
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert not {"script", "link", "iframe", "b>"} & set(page.tags)
    assert "http" not in text
    assert "url(" not in text
    assert ODD in page.text, "names are escaped"
    assert "<i>alas</i>" in page.text
    for sentence in (NOTICE, "trained on drawings", "12 images", "1 could not be read", "tiny, fp32, 1 view an image"):
        assert sentence in page.text
    write_html(outcomes, tmp_path / "b.html", source, synthetic=False)
    assert "trained on drawings" not in (tmp_path / "b.html").read_text(encoding="utf-8")


def test_a_long_page_has_pictures_of_the_first_images(
    outcomes: tuple[Outcome, ...], source: Source, tmp_path: Path
) -> None:
    many = [outcomes[0]] * (MAX_PICTURES + 20)
    write_html(many, tmp_path / "a.html", source, synthetic=False)
    page = Page((tmp_path / "a.html").read_text(encoding="utf-8"))
    assert page.tags.count("img") == MAX_PICTURES
    assert page.tags.count("tr") == 9 + MAX_PICTURES + 20
    assert f"Pictures of the first {MAX_PICTURES}." in page.text


WHOLE = {
    "json": lambda outcomes, out, source: write_json(outcomes, out, source, synthetic=False),
    "isic": lambda outcomes, out, source: write_isic(outcomes, out),
    "parquet": lambda outcomes, out, source: write_parquet(outcomes, out, source, synthetic=False),
    "html": lambda outcomes, out, source: write_html(outcomes, out, source, synthetic=False),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_files_appear_whole_or_not_at_all(
    outcomes: tuple[Outcome, ...], source: Source, tmp_path: Path, kind: str
) -> None:
    def interrupted() -> Iterator[Outcome]:
        yield from outcomes[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        WHOLE[kind](interrupted(), tmp_path / f"a.{kind}", source)
    assert not list(tmp_path.iterdir())


def test_half_a_document_is_never_printed(
    outcomes: tuple[Outcome, ...], source: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> Iterator[Outcome]:
        yield outcomes[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_json(interrupted(), None, source, synthetic=False)
    assert capsys.readouterr().out == ""
    write_json(outcomes, None, source, synthetic=False)
    assert json.loads(capsys.readouterr().out)["images"] == COUNT
