"""The pictures of a judgement: reliability, decision curve, risk and coverage.

Each takes plain numbers and draws one file in the house style (`figure_style`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lentigo.core.errors import DataError
from lentigo.evaluation.figure_style import DASHED, DOTTED, PALETTE, SHARE_TICKS, head, new_figure, quiet_axes, save
from lentigo.evaluation.metrics import Estimate
from lentigo.evaluation.wording import value_with_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of like confidence: their mean confidence in 0..1, and the share of right ones with its interval."""

    mean_confidence: float
    accuracy: Estimate


@dataclass(frozen=True, slots=True)
class Reliability:
    """Bins of one set of probabilities, its expected calibration error, and the confidence of every answer (N,)."""

    bins: Sequence[Bin]
    ece: Estimate
    confidences: ArrayLike


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a rule stands that leaves images out: share of images answered, of wrong ones among these."""

    coverage: Estimate
    risk: Estimate
    text: str


def reliability(found: Mapping[str, Reliability], path: Path, *, note: str = "") -> Path:
    """Accuracy over confidence, one line per set of probabilities, and how often each confidence occurs.

    `found`: such as "raw" and "after temperature", in that order; at most three. Diagram after DeGroot &
    Fienberg, The Statistician 32, 1983.

    Raises:
        DataError: without any bin.
    """
    if not any(one.bins for one in found.values()):
        raise DataError("expected reliability bins; found none", "Leave the diagram out where nothing was judged.")
    figure = new_figure(5.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    looks: list[tuple[str, str, Any]] = [("orange", "s", DASHED), ("blue", "o", "-"), ("green", "^", "-")]
    if len(found) == 1:
        looks = looks[1:]
    quiet_axes(upper).plot([0, 1], [0, 1], color=PALETTE["muted"], linewidth=1, linestyle=DOTTED)
    edges = np.linspace(0, 1, 21)
    for (name, one), (colour, marker, dashes) in zip(found.items(), looks, strict=False):
        x = _floats([each.mean_confidence for each in one.bins])
        y, low, high = _with_bounds([each.accuracy for each in one.bins])
        upper.vlines(x, low, high, color=PALETTE[colour], linewidth=1.1, alpha=0.55)
        upper.plot(
            x, y, color=PALETTE[colour], linestyle=dashes, linewidth=1.5, marker=marker, markersize=5, clip_on=False,
            label=f"{name}: ECE {value_with_interval(one.ece)}",
        )  # fmt: skip
        counts, _ = np.histogram(_floats(one.confidences), edges)
        lower.stairs(counts, edges, color=PALETTE[colour], linewidth=1.4, linestyle=dashes)
    _percent(upper, "y")
    upper.set_ylabel("answered right", fontsize=9, color=PALETTE["muted"])
    upper.grid(color=PALETTE["line"], linewidth=0.8)
    quiet_axes(lower).set_ylabel("images", fontsize=9, color=PALETTE["muted"])
    lower.grid(axis="y", color=PALETTE["line"], linewidth=0.8)
    lower.locator_params(axis="y", nbins=3, integer=True)
    _percent(lower, "x")
    lower.set_xlabel("confidence of the answer", fontsize=9, color=PALETTE["muted"])
    _stacked_legend(upper, "Reliability, with 95% intervals", len(found))
    return save(figure, path, note)


def _percent(axes: Axes, direction: str) -> None:
    """A 0..100% axis."""
    if direction == "x":
        axes.set_xlim(-0.01, 1.01)
        axes.set_xticks(*SHARE_TICKS)
    else:
        axes.set_ylim(-0.01, 1.01)
        axes.set_yticks(*SHARE_TICKS)


def _stacked_legend(axes: Axes, heading: str, entries: int) -> None:
    """A heading with one legend line per entry, if any, below it: names may be long."""
    if not entries:
        head(axes, heading)
        return
    head(axes, heading, legend_columns=1)
    axes.set_title(heading, loc="left", fontsize=10.5, fontweight="bold", color=PALETTE["ink"], pad=12 + 15 * entries)


def decision_curve(
    thresholds: ArrayLike, by_model: Sequence[Estimate], of_all: Sequence[Estimate], path: Path, *, note: str = ""
) -> Path:
    """Net benefit of referring by the malignant score, with its band, of referring everyone, and of referring no one.

    thresholds: (T,) in 0..1; T estimates each, in true positives per image. Vickers & Elkin, Medical Decision
    Making 26, 2006.
    """
    t, (model, low, high), everyone = _floats(thresholds), _with_bounds(by_model), _with_bounds(of_all)[0]
    figure = new_figure(3.7)
    axes = quiet_axes(figure.add_subplot())
    axes.grid(axis="y", color=PALETTE["line"], linewidth=0.8)
    axes.fill_between(t, low, high, color=PALETTE["blue"], alpha=0.18, linewidth=0)
    # In the order of the legend; zorder brings the model to the front.
    axes.plot(t, model, color=PALETTE["blue"], linewidth=2.2, zorder=4, label="by the model")
    axes.plot(t, everyone, color=PALETTE["orange"], linewidth=1.6, linestyle=DASHED, label="everyone")
    axes.plot(t, np.zeros_like(t), color=PALETTE["muted"], linewidth=1.4, linestyle=DOTTED, label="no one")
    top = _highest([high, model, everyone], least=0.02)
    # Referring everyone falls without bound; what is far below "no one" needs no room.
    axes.set_ylim(-0.25 * top, 1.05 * top)
    axes.set_xlim(float(t.min()), float(t.max()))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("threshold: least probability of malignancy to refer", fontsize=9, color=PALETTE["muted"])
    axes.set_ylabel("net benefit per image", fontsize=9, color=PALETTE["muted"])
    head(axes, "Decision curve: whom to refer as malignant", legend_columns=3)
    return save(figure, path, note)


def risk_coverage(
    coverage: ArrayLike, risk: Sequence[Estimate], path: Path, *, marks: Sequence[Mark] = (), note: str = ""
) -> Path:
    """Share of wrong answers, with its band, over the share of images answered, most confident first.

    coverage: (P,) in 0..1, with P estimates. El-Yaniv & Wiener, JMLR 11, 2010. A mark that accepts nothing is
    named and not drawn.
    """
    x, (y, low, high) = _floats(coverage), _with_bounds(risk)
    figure = new_figure(3.4 + 0.2 * len(marks))
    axes = quiet_axes(figure.add_subplot())
    axes.grid(axis="y", color=PALETTE["line"], linewidth=0.8)
    axes.fill_between(x, low, high, color=PALETTE["blue"], alpha=0.18, linewidth=0)
    axes.plot(x, y, color=PALETTE["blue"], linewidth=2.2)
    for mark, shape in zip(marks, "Ds^v", strict=False):
        (across, *width), (up, *height) = _with_bounds([mark.coverage]), _with_bounds([mark.risk])
        axes.hlines(up, *width, color=PALETTE["orange"], linewidth=1.2)
        axes.vlines(across, *height, color=PALETTE["orange"], linewidth=1.2)
        axes.plot(across, up, shape, markersize=6.5, color=PALETTE["orange"], clip_on=False, zorder=3, label=mark.text)
    _percent(axes, "x")
    axes.set_ylim(0, 1.05 * _highest([high, y, *(_with_bounds([mark.risk])[2] for mark in marks)], least=0.02))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.locator_params(axis="y", nbins=5)
    axes.set_xlabel("images answered, most confident first", fontsize=9, color=PALETTE["muted"])
    axes.set_ylabel("of these, wrong", fontsize=9, color=PALETTE["muted"])
    _stacked_legend(axes, "Risk and coverage", len(marks))
    return save(figure, path, note)


def _with_bounds(estimates: Sequence[Estimate]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Values, lower and upper bounds, (P,) each; nan, which leaves a gap, where there is none."""
    rows = [(found.value, found.ci_low, found.ci_high) for found in estimates]
    values, low, high = _floats([[np.nan if one is None else one for one in row] for row in rows]).reshape(-1, 3).T
    return values, low, high


def _highest(lines: Sequence[NDArray[np.float64]], *, least: float) -> float:
    """The largest number of all lines, and `least` at least."""
    numbers = np.concatenate([[least], *lines])
    return float(numbers[~np.isnan(numbers)].max())


def _floats(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)
