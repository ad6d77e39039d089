"""The pictures of a judgement are written, say what they must, keep to the palette and refuse what does not fit."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from lentigo.core.errors import DataError
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.evaluation import curve_figures, group_figures, judgement_figures
from lentigo.evaluation.curve_figures import Curve
from lentigo.evaluation.delong import MALIGNANT
from lentigo.evaluation.figure_style import PALETTE
from lentigo.evaluation.group_figures import CorruptionRow, SubgroupRow
from lentigo.evaluation.judgement_figures import Bin, Mark, Reliability
from lentigo.evaluation.metrics import Estimate
from lentigo.evaluation.report_figures import figure_html
from lentigo.evaluation.wording import PLAIN

NOTE = "Drawn images, not patients."
NOTHING = Estimate(None, None, None, 0)


def share(value, n=200, width=0.05):
    return Estimate(value, max(value - width, 0.0), min(value + width, 1.0), n)


def curves(**changes):
    x = np.linspace(0, 1, 20)
    return {name: Curve(x, np.sqrt(x), share(0.876, 60)) for name in (*CLASS_CODES, MALIGNANT)} | changes


def bins(shift):
    return [Bin(x, share(max(x - shift, 0.0), 20)) for x in np.linspace(0.3, 0.95, 8)]


BEFORE = Reliability(bins(0.1), share(0.123), np.linspace(0.2, 1, 160))
AFTER = Reliability(bins(0.0), Estimate(0.021, None, None, 160), np.linspace(0.3, 1, 160))
LEVELS = np.arange(1, 61) / 100
BENEFIT = [share(0.2 - 0.1 * t) for t in LEVELS]
OF_ALL = [Estimate(0.2 - 0.8 * t / (1 - t), None, None, 200) for t in LEVELS]
COVERAGES = np.arange(1, 21) / 20
RISKS = [share(0.2 * c) for c in COVERAGES]
MARKS = [Mark(share(0.8), share(0.15), "confidence of 62% or more"), Mark(NOTHING, NOTHING, "no rule holds")]
SUBGROUPS = [
    SubgroupRow("sex", "female", 120, share(0.7), expected=0.68),
    SubgroupRow("sex", "male", 80, share(0.5), flagged=True),
    SubgroupRow("age", "under 30", 9, NOTHING),
    SubgroupRow("age", "30 and over", 191, Estimate(0.7, None, None, 191)),
]
KINDS = [
    CorruptionRow("dark_corners", (0.7, 0.6, None), share(0.65)),
    CorruptionRow("hair", (0.4, 0.2, 0.1), share(0.23)),
    CorruptionRow("unjudged", (None, None, None), NOTHING),
]

DRAW = {
    "roc": lambda path: curve_figures.roc(curves(), path, note=NOTE),
    "a class without images": lambda path: curve_figures.roc(curves(df=Curve([], [], NOTHING)), path, note=NOTE),
    "malignant undefined": lambda path: curve_figures.roc({MALIGNANT: Curve([], [], NOTHING)}, path, note=NOTE),
    "precision_recall": lambda path: curve_figures.precision_recall(curves(), path, note=NOTE),
    "reliability": lambda p: judgement_figures.reliability({"raw": BEFORE, "calibrated": AFTER}, p, note=NOTE),
    "reliability, uncalibrated": lambda path: judgement_figures.reliability({"raw": BEFORE}, path, note=NOTE),
    "decision_curve": lambda path: judgement_figures.decision_curve(LEVELS, BENEFIT, OF_ALL, path, note=NOTE),
    "decisions undefined": lambda p: judgement_figures.decision_curve(
        [0.1, 0.2], [NOTHING] * 2, [NOTHING] * 2, p, note=NOTE
    ),
    "risk_coverage": lambda p: judgement_figures.risk_coverage(COVERAGES, RISKS, p, marks=MARKS, note=NOTE),
    "risk without marks": lambda path: judgement_figures.risk_coverage(COVERAGES, RISKS, path, note=NOTE),
    "subgroup_forest": lambda path: group_figures.subgroup_forest(
        SUBGROUPS, share(0.66), path, metric="Accuracy", note=NOTE
    ),
    "forest of AUC": lambda p: group_figures.subgroup_forest(
        SUBGROUPS[:1], NOTHING, p, metric="AUC", kind=PLAIN, note=NOTE
    ),
    "robustness": lambda path: group_figures.robustness(KINDS, share(0.8), path, metric="Accuracy", note=NOTE),
    "robustness without clean": lambda p: group_figures.robustness(KINDS, NOTHING, p, metric="Accuracy", note=NOTE),
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Name -> the figure as SVG, each drawn once."""
    folder = tmp_path_factory.mktemp("figures")
    return {name: draw(folder / f"{number}.svg") for number, (name, draw) in enumerate(DRAW.items())}


def texts(path):
    return [element.text for element in ElementTree.parse(path).iter() if element.tag.endswith("}text")]


@pytest.mark.parametrize("name", DRAW)
def test_figure_has_its_note(name, drawn):
    assert NOTE in texts(drawn[name])


@pytest.mark.parametrize("name", ["precision_recall", "reliability", "risk_coverage", "robustness"])
def test_figure_is_the_same_twice(name, drawn, tmp_path):
    assert DRAW[name](tmp_path / "again.svg").read_bytes() == drawn[name].read_bytes()


@pytest.mark.parametrize("name", DRAW)
def test_every_colour_follows_the_reports_theme(name, drawn):
    """A colour outside the palette would stay dark on dark: the report replaces the palette's alone."""
    page = figure_html("figure", drawn[name], description="A figure")
    assert 'class="foreign"' not in page
    assert "var(--ink)" in page
    assert not re.findall(r"(?:fill|stroke|color): ?#[0-9a-f]{3,6}", page)
    assert "rgb(" not in page


@pytest.mark.parametrize("name", ["roc", "decision_curve", "subgroup_forest", "robustness"])
def test_png_is_phone_wide_and_nothing_is_cut_off(name, tmp_path):
    with Image.open(DRAW[name](tmp_path / "a.png")) as image:
        pixels = np.asarray(image.convert("RGB"))
    paper = np.frombuffer(bytes.fromhex(PALETTE["paper"][1:]), dtype=np.uint8)
    assert pixels.shape[1] == 960
    assert all((side == paper).all() for side in (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:]))


def test_roc_prints_area_interval_and_n_of_every_curve(drawn):
    found = texts(drawn["roc"])
    assert {f"{code.upper()} 0.876" for code in CLASS_CODES} | {"malignant 0.876"} <= set(found)
    assert found.count("0.826–0.926 n 60") == 8


def test_undefined_class_says_so(drawn):
    found = texts(drawn["a class without images"])
    assert {"DF –", "n 0", "undefined"} <= set(found)


def test_reliability_prints_the_errors_with_their_intervals(drawn):
    found = texts(drawn["reliability"])
    assert {"raw: ECE 12.3% (7.3–17.3)", "calibrated: ECE 2.1%"} <= set(found)


def test_subgroups_print_n_value_and_what_the_marks_mean(drawn):
    found = texts(drawn["subgroup_forest"])
    assert {"female · 120", "70.0%", "under 30 · 9", "not judged"} <= {text.strip() for text in found if text}
    joined = " ".join(text for text in found if text)
    assert "band: all images, n 200, 66.0% (61.0–71.0)" in joined
    assert "diamond: interval apart" in joined
    assert "tick: expected" in joined


def test_the_most_harmful_corruption_comes_first_and_the_unjudged_last(drawn):
    found = texts(drawn["robustness"])
    assert [text for text in found if text in ("hair", "dark corners", "unjudged")] == [
        "hair",
        "dark corners",
        "unjudged",
    ]
    assert {"40", "23.0% (18.0–28.0)", "–"} <= set(found)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda path: curve_figures.roc({"nv": Curve([], [], NOTHING)}, path), "'malignant'; found nv"),
        (lambda path: curve_figures.precision_recall({}, path), "found none"),
        (lambda path: judgement_figures.reliability({"raw": Reliability([], NOTHING, [])}, path), "found none"),
        (lambda path: group_figures.robustness([], NOTHING, path, metric="x"), "found 0 kinds"),
        (
            lambda path: group_figures.robustness(
                [*KINDS, CorruptionRow("x", (0.1,), NOTHING)], NOTHING, path, metric="x"
            ),
            r"4 kinds with \[1, 3\] severities",
        ),
    ],
)
def test_wrong_input_is_refused(draw, message, tmp_path):
    with pytest.raises(DataError, match=message):
        draw(tmp_path / "a.svg")
    assert not list(tmp_path.iterdir())
