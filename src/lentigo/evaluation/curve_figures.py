"""ROC curves and precision over recall, every class in a panel of its own.

Eight curves in one panel would need eight colours that nobody tells apart: every class has a small panel of its own
instead, the others pale behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from lentigo.core.errors import DataError, first_five
from lentigo.core.taxonomy import CLASSES, find_label
from lentigo.evaluation.delong import MALIGNANT
from lentigo.evaluation.figure_style import DOTTED, PALETTE, SHARE_TICKS, figure_head, new_figure, quiet_axes, save
from lentigo.evaluation.metrics import Estimate
from lentigo.evaluation.wording import PLAIN, count_text, interval_text, value_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 4
# Inches: panel side, gap between panels, room above a panel for its title, row to row, left edge.
_CELL, _GAP, _TITLE = 0.9, 0.16, 0.36
_PITCH = _CELL + _TITLE + 0.12
_LEFT = 0.6


@dataclass(frozen=True, slots=True)
class Curve:
    """One ROC or precision-recall curve: x, y (P,) in 0..1 in the order to be joined, and the area below it.

    `guide` is the y of a useless score at x = 0 and 1: the diagonal of a ROC curve, the prevalence for precision.
    """

    x: ArrayLike
    y: ArrayLike
    area: Estimate
    guide: tuple[float, float] = (0.0, 1.0)


def roc(curves: Mapping[str, Curve], path: Path, *, note: str = "") -> Path:
    """ROC curves: malignant against benign large, each class against the rest small; AUC, interval and n above.

    `curves`: class code or MALIGNANT -> false positive rate, true positive rate, AUC.

    Raises:
        DataError: without the malignant curve.
    """
    words = ("ROC: area, 95% interval, n", "1 − specificity", "sensitivity")
    return _curve_sheet(curves, path, words, "default", note)


def precision_recall(curves: Mapping[str, Curve], path: Path, *, note: str = "") -> Path:
    """Precision over recall, as `roc`; the area is the average precision, the dotted line the prevalence.

    Raises:
        DataError: without the malignant curve.
    """
    words = ("Precision and recall: average precision, 95% interval, n", "recall", "precision")
    # No straight line between points: on this curve that would be too good (Davis & Goadrich, ICML 2006).
    return _curve_sheet(curves, path, words, "steps-pre", note)


def _curve_sheet(curves: Mapping[str, Curve], path: Path, words: tuple[str, str, str], style: str, note: str) -> Path:
    """`words`: heading, x axis, y axis; `style`: matplotlib's drawstyle."""
    if MALIGNANT not in curves:
        raise DataError(
            f"expected a curve of {MALIGNANT!r}; found {first_five(list(curves)) or 'none'}",
            "Pass it, with an undefined area where there is none.",
        )
    heading, x_text, y_text = words
    small = [name for name in curves if name != MALIGNANT]
    rows = max(2, 2 + -(-(len(small) - 4) // _COLUMNS))
    bottom = 0.5 if note else 0.12
    figure = new_figure(0.4 + rows * _PITCH + bottom)
    figure.set_layout_engine("none")  # it would make room for titles that may reach into the gap
    side = 2 * _CELL + _GAP
    top = figure.get_figheight() - 0.4 - _TITLE
    large = _place(figure, 0, top, side)
    _curve_panel(large, MALIGNANT, curves, style, large=True)
    large.set_xlabel(x_text, fontsize=9, color=PALETTE["muted"])
    large.set_ylabel(y_text, fontsize=9, color=PALETTE["muted"], labelpad=1)
    cells = [(row, column) for row in range(rows) for column in range(2 if row < 2 else 0, _COLUMNS)]
    for name, (row, column) in zip(small, cells, strict=False):
        _curve_panel(_place(figure, column, top - row * _PITCH, _CELL), name, curves, style, large=False)
    for row, column in cells[len(small) : len(small) + 1]:
        free = _place(figure, column, top - row * _PITCH, _CELL)
        free.set_axis_off()
        free.text(
            0, 1, "dotted: chance\nthin: the others", va="top", fontsize=8, linespacing=1.5, color=PALETTE["muted"]
        )
    figure_head(figure, heading)
    return save(figure, path, note)


def _place(figure: Figure, column: int, top_inches: float, side_inches: float) -> Axes:
    """A square panel whose upper edge is so far above the foot."""
    width, height = figure.get_figwidth(), figure.get_figheight()
    left = _LEFT + column * (_CELL + _GAP)
    bottom = top_inches - side_inches
    return quiet_axes(figure.add_axes((left / width, bottom / height, side_inches / width, side_inches / height)))


def _curve_panel(axes: Axes, name: str, curves: Mapping[str, Curve], style: str, *, large: bool) -> None:
    """One curve in front of the others; a class that cannot be judged says so."""
    found = curves[name].area
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_xticks(SHARE_TICKS[0][::2], SHARE_TICKS[1][::2] if large else [])
    axes.set_yticks(SHARE_TICKS[0][::2], SHARE_TICKS[1][::2] if large else [])
    axes.grid(color=PALETTE["line"], linewidth=0.6)
    size = 10.5 if large else 9
    title = f"{_class_text(name)} {value_text(found.value, PLAIN)}"
    offset: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate(title, (0, 1), xytext=(0, 14), fontsize=size, fontweight="bold", color=PALETTE["ink"], **offset)
    below = " ".join(part for part in (interval_text(found, PLAIN), f"n {count_text(found.n)}") if part)
    axes.annotate(below, (0, 1), xytext=(0, 4), fontsize=size - 1.5, color=PALETTE["muted"], **offset)
    if found.value is None:
        axes.text(0.5, 0.5, "undefined", ha="center", va="center", fontsize=8, color=PALETTE["muted"])
        return
    for other in curves.values():
        axes.plot(other.x, other.y, color=PALETTE["grey"], alpha=0.4, linewidth=0.7, drawstyle=style)
    axes.plot([0, 1], curves[name].guide, color=PALETTE["muted"], linewidth=0.9, linestyle=DOTTED)
    own, width = curves[name], 2.2 if large else 1.6
    axes.plot(own.x, own.y, color=PALETTE["blue"], linewidth=width, drawstyle=style, clip_on=False)


def _class_text(name: str) -> str:
    """The printed code of a class, any other name as it is."""
    label = find_label(name)
    return name if label is None else CLASSES[label].label_text
