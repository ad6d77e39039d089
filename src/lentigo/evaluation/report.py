"""One self-contained HTML page about a run: the answer first, then what it rests on, then its limits.

The page makes no request and runs no script; its content security policy forbids both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from lentigo.core.errors import DataError
from lentigo.core.files import write_text_atomic
from lentigo.evaluation.evaluate import Judgement, classification_report
from lentigo.evaluation.report_figures import figure_html, image_html, plain_words
from lentigo.evaluation.report_tables import (
    class_text,
    confusion_table,
    epochs_table,
    headline,
    key_numbers,
    per_class_table,
    splits_table,
)
from lentigo.evaluation.wording import kept_text

RESEARCH_NOTICE = "Research use only. Not a medical device, not a diagnosis."
SYNTHETIC_BANNER = "drawn images, not patients: these numbers say nothing about real lesions"

_SPLIT_ORDER = ("test", "val")
"""The page answers with the first of these that was judged."""
_DESCRIPTIONS = {
    "curves": "Loss and accuracy per epoch",
    "class_balance": "Bars of images per class and split",
    "images": "Training images as prepared for the network, with their classes",
    "images_augmented": "The same training images after augmentation",
}
"""Known figures in the order of the page; the text is for those who cannot see them."""
_NOT_COMPARABLE = (
    "Train is measured while the epoch runs, on augmented, perhaps resampled, mixed or label-smoothed images; "
    "val afterwards, on plain ones: not the same quantity."
)
_DRAWN_AS_TABLES = ("confusion", "per_class")
"""Figures of these names, with any suffix such as `_val`, are left out: the page holds them as tables."""


GalleryItem = tuple[bytes, str, str, float]
"""One judged image: thumbnail as JPEG bytes, true code, answered code, the answer's probability in 0..1."""


def write_report(
    path: Path,
    *,
    title: str,
    judgements: Mapping[str, Judgement | Mapping[str, Any]],
    run_facts: Mapping[str, str],
    log_rows: Sequence[Mapping[str, float]] = (),
    figures: Mapping[str, str | Path] | None = None,
    examined: Mapping[str, str] | None = None,
    mining: str = "",
    checklist: str = "",
    gallery: Sequence[GalleryItem] = (),
    synthetic: bool,
    test_looks: int,
    kept_epoch: int | None = None,
    selection_metric: str = "balanced_accuracy",
) -> Path:
    """Write the report of a run.

    `judgements`: split -> Judgement, or its dict as in metrics.json; the page answers with test where it is
    judged, else with val. `log_rows`: as for `figures.curves`. `figures`: name -> SVG text, or the path of an
    SVG, PNG or JPEG. `examined`: heading -> body of the sections behind the classes, as HTML; `mining` and `checklist`:
    bodies of these sections. `test_looks`: how often test was
    judged. `kept_epoch`, where known, was chosen by `selection_metric`, a name as in `config.training`.

    Raises:
        DataError: without any judgement, on a malformed one, or on a figure that runs or loads something.
    """
    if not judgements:
        raise DataError("expected at least one judged split; found none", "Run `lentigo evaluate RUN` first.")
    judged = sorted(
        (one if isinstance(one, Judgement) else Judgement.from_dict(one) for one in judgements.values()),
        key=_rank,
    )
    first = judged[0]
    curves_caption = _curves_caption(log_rows, kept_epoch, selection_metric)
    sections = [
        _section("All judged splits", splits_table(judged)) if len(judged) > 1 else "",
        *(_section(f"{one.split.capitalize()}: class by class", _split_body(one)) for one in judged),
        *(_section(heading, body) for heading, body in (examined or {}).items()),
        _figures_section(figures or {}, log_rows, curves_caption),
        _section("Hard mining", mining) if mining else "",
        _gallery_section(gallery),
        _section("The run", _facts(run_facts)) if run_facts else "",
        _section("Text report", _text_reports(judged)),
        _section("Reporting checklists", checklist) if checklist else "",
        _section("Limits", _limits(first, test_looks, selection_metric)),
    ]
    template = Template(_resource("report.html"))
    page = template.substitute(
        title=escape(title),
        style=_resource("report.css"),
        notice=RESEARCH_NOTICE,
        synthetic=_synthetic_banner() if synthetic else "",
        headline=headline(first),
        looks=_looks_line(first, test_looks),
        key_numbers=key_numbers(first),
        sections="\n".join(section for section in sections if section),
        resamples=f"{first.interval}, {first.resamples} resamples, seed {first.seed}",
    )
    return write_text_atomic(path, page)


def _rank(judgement: Judgement) -> tuple[int, str]:
    known = judgement.split in _SPLIT_ORDER
    return (_SPLIT_ORDER.index(judgement.split) if known else len(_SPLIT_ORDER)), judgement.split


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _section(heading: str, body: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>{body}</section>"


def _synthetic_banner() -> str:
    return (
        '<div class="synthetic" role="note"><strong>Synthetic data</strong>'
        f"{SYNTHETIC_BANNER[0].upper()}{SYNTHETIC_BANNER[1:]}.</div>"
    )


def _split_body(judgement: Judgement) -> str:
    return per_class_table(judgement) + confusion_table(judgement)


def _looks_line(judgement: Judgement, test_looks: int) -> str:
    """Beside a test score, how often the test split was judged: each look makes the score less of a test."""
    return f'<p class="versus">{looks_text(test_looks)}</p>' if judgement.split == "test" else ""


def looks_text(test_looks: int) -> str:
    """How often the test split was judged, as a sentence."""
    if test_looks == 0:
        return "The test split has not been looked at."
    times = {1: "once", 2: "twice"}.get(test_looks, f"{test_looks} times")
    return f"The test split has been looked at {times}."


def _figures_section(
    figures: Mapping[str, str | Path], log_rows: Sequence[Mapping[str, float]], curves_caption: str
) -> str:
    """Known figures in the order of `_DESCRIPTIONS`, then the others; below them the log as a table."""
    shown = [name for name in figures if not name.startswith(_DRAWN_AS_TABLES)]
    order = list(_DESCRIPTIONS)
    shown.sort(key=lambda name: order.index(name) if name in order else len(order))
    drawn = "".join(
        figure_html(
            name,
            figures[name],
            description=_DESCRIPTIONS.get(name) or plain_words(name),
            caption=curves_caption if name == "curves" else "" if name in _DESCRIPTIONS else plain_words(name),
        )
        for name in shown
    )
    table = epochs_table(log_rows) if log_rows else ""
    if not drawn and not table:
        return ""
    return _section("Data and training", f'<div class="figures">{drawn}</div>{table}')


def _curves_caption(log_rows: Sequence[Mapping[str, float]], kept_epoch: int | None, selection_metric: str) -> str:
    """Which epoch's weights were kept and why, then how to read the two kinds of lines."""
    if kept_epoch is None:
        return _NOT_COMPARABLE
    score = {row["epoch"]: row.get(f"val_{selection_metric}") for row in log_rows}.get(kept_epoch)
    return f"Dotted line: {kept_text(kept_epoch, selection_metric, score)}. {_NOT_COMPARABLE}"


def _gallery_section(gallery: Sequence[GalleryItem]) -> str:
    if not gallery:
        return ""
    only_errors = all(true_code != answered_code for _, true_code, answered_code, _ in gallery)
    return _section(
        "Errors" if only_errors else "Images",
        "<p>Below each image the true class, then the answer with its probability.</p>"
        f'<div class="gallery">{"".join(map(_gallery_item, gallery))}</div>',
    )


def _gallery_item(item: GalleryItem) -> str:
    thumbnail_jpeg, true_code, answered_code, probability = item
    truth, answer = class_text(true_code), class_text(answered_code)
    kind, mark = ("right", "✓") if truth == answer else ("wrong", "✗")
    caption = f'{truth}<br><span class="{kind}">{mark} {answer}</span> {probability:.0%}'
    picture = image_html(thumbnail_jpeg, "jpeg", f"{truth}, answered as {answer}")
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _facts(run_facts: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in run_facts.items())
    return f'<dl class="facts">{rows}</dl>'


def _text_reports(judged: Sequence[Judgement]) -> str:
    blocks = []
    for one in judged:
        split, text = escape(one.split), escape(classification_report(one))
        blocks.append(f'<div><h3>{split}</h3><pre tabindex="0" aria-label="Report of {split}">{text}</pre></div>')
    return f'<div class="texts">{"".join(blocks)}</div>'


def _limits(judgement: Judgement, test_looks: int, selection_metric: str) -> str:
    few = [code for code, scores in judgement.per_class.items() if scores.n_lesions < 30]
    items = [looks_text(test_looks)]
    if judgement.split == "val" and selection_metric != "last":
        items.append("The val split also serves to choose the epoch, so its scores are a little too good.")
    if few:
        names = ", ".join(class_text(code) for code in few)
        items.append(f"Fewer than 30 {judgement.split} lesions: {names}. Their intervals are themselves uncertain.")
    items += [
        "Intervals resample lesions, not images. They do not cover another clinic, camera or skin type, nor "
        "another training seed.",
    ]
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"
