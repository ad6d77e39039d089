"""The report stands alone, escapes what it is given, and says what it must."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from lentigo.core.errors import DataError
from lentigo.core.predictions import Predictions
from lentigo.evaluation import figures
from lentigo.evaluation.evaluate import judge
from lentigo.evaluation.report import RESEARCH_NOTICE, SYNTHETIC_BANNER, write_report

EVIL = '<script>alert("x")</script>&\''
LOG = [{"epoch": e, "train_loss": 1 / e, "val_loss": 1.0, "val_balanced_accuracy": 0.3 + 0.1 * e} for e in (1, 2, 3)]


def judged(split, count=70, classes=7):
    generator = np.random.default_rng(len(split))
    labels = generator.integers(classes, size=count)
    logits = generator.normal(size=(count, 7)).astype(np.float32)
    logits[np.arange(count), labels] += 1.5
    names = tuple(f"i{i}" for i in range(count))
    return judge(Predictions(names, names, labels.astype(np.int64), logits), split=split, resamples=50)


def write(path, **changes):
    arguments = {
        "title": "A run",
        "judgements": {"val": judged("val").as_dict()},
        "run_facts": {"recipe": "paper-v3"},
        "log_rows": LOG,
        "synthetic": False,
        "test_looks": 0,
    }
    return write_report(path / "report.html", **(arguments | changes)).read_text(encoding="utf-8")


class Page(HTMLParser):
    """Checks nesting and collects what a page would load or run."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.headings, self.ids, self.images_without_text = [], [], [], [], 0
        self.tags = set()
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        attributes = dict(attributes)
        self.loads += [attributes[name] for name in ("src", "href", "xlink:href") if name in attributes]
        if tag == "img" or (tag == "svg" and attributes.get("role") == "img"):
            self.images_without_text += not (attributes.get("alt") or attributes.get("aria-label"))
        if re.fullmatch(r"h\d", tag):
            self.headings.append(int(tag[1]))
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A report with everything in it."""
    tmp_path = tmp_path_factory.mktemp("full")
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "tan").save(buffer, "JPEG")
    curves = figures.curves(LOG, tmp_path / "curves.svg")
    confusion = figures.confusion(np.eye(7), tmp_path / "confusion.svg")
    grid = figures.image_grid([np.zeros((8, 8), dtype=np.uint8)], ["NV"], tmp_path / "grid.png")
    return write(
        tmp_path,
        judgements={"val": judged("val"), "test": judged("test")},
        figures={
            "curves": curves,
            "again": curves.read_text(),
            "confusion_val": confusion,
            "images": grid,
        },
        gallery=[(buffer.getvalue(), "mel", "nv", 0.93)],
        synthetic=True,
        test_looks=2,
        kept_epoch=3,
        selection_metric="balanced_accuracy",
    )


def test_page_is_self_contained(full):
    page = Page(full)
    assert page.loads
    assert all(load.startswith(("data:image/", "#")) for load in page.loads)
    assert not re.findall(r"https?://(?!www\.w3\.org)", full)
    assert "@import" not in full
    assert not re.findall(r"url\((?!#)", full)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert "default-src 'none'" in full


def test_page_is_sound_html(full):
    page = Page(full)
    assert page.headings[0] == 1
    assert all(after - before <= 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert page.images_without_text == 0
    assert len(page.ids) == len(set(page.ids))
    references = set(re.findall(r'(?:url\(|href=")#([\w-]+)', full))
    assert references <= set(page.ids)


def test_page_answers_with_test_and_says_how_often_it_was_opened(full):
    assert re.search(r"Balanced accuracy \d+\.\d%</span> \(95% CI [\d.]+–[\d.]+\) on 70 test images of 70", full)
    assert "The test split has been looked at twice." in full
    assert full.index("Test: class by class") < full.index("Val: class by class")


def test_page_says_what_it_must(full):
    assert full.count(RESEARCH_NOTICE) == 2
    assert SYNTHETIC_BANNER[1:] in full
    assert "Dotted line: epoch 3, kept for its val balanced accuracy of 60.0%." in full
    assert "not the same quantity" in full
    assert "✗ NV" in full
    assert "Always answering" in full


def test_real_data_has_no_synthetic_banner(tmp_path):
    page = write(tmp_path)
    assert SYNTHETIC_BANNER[1:] not in page
    assert "The test split has not been looked at." in page


def test_strings_from_outside_are_escaped(tmp_path):
    page = write(
        tmp_path,
        title=EVIL,
        run_facts={EVIL: EVIL},
        judgements={EVIL: judged("val").model_copy(update={"split": EVIL})},
        gallery=[(b"", EVIL, EVIL, 0.5)],
    )
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "script" not in Page(page).tags


@pytest.mark.parametrize(
    "svg",
    [
        "<svg><script>x</script></svg>",
        '<svg onload="x"></svg>',
        '<svg><image href="http://a.example/i.png"/></svg>',
        '<svg><g style="fill:url(http://a.example)"/></svg>',
        "<svg><foreignObject></foreignObject></svg>",
        "no figure",
    ],
)
def test_figures_that_run_or_load_something_are_refused(svg, tmp_path):
    with pytest.raises(DataError, match="plain SVG"):
        write(tmp_path, figures={"odd": svg})


def test_figure_takes_the_colours_of_the_page_and_a_foreign_one_keeps_its_own(tmp_path):
    ours = write(tmp_path, figures={"curves": figures.curves(LOG, tmp_path / "c.svg")})
    assert "var(--ink)" in ours.split("</style>", 1)[1]
    foreign = write(tmp_path, figures={"other": '<svg viewBox="0 0 1 1"><rect fill="#000"/></svg>'})
    assert 'class="foreign"' in foreign


def test_undefined_scores_are_dashes(tmp_path):
    page = write(tmp_path, judgements={"val": judged("val", count=1)}, log_rows=[{"epoch": 1}])
    assert "1 val image of 1 lesion<" in page
    assert "undefined" in page
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)


def test_report_without_judgement_is_refused(tmp_path):
    with pytest.raises(DataError, match="at least one judged split"):
        write(tmp_path, judgements={})


def test_equal_input_gives_equal_bytes(tmp_path):
    assert write(tmp_path) == write(tmp_path)
