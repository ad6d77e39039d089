"""Scores of many groups in one picture: subgroups of patients, kinds of corrupted images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lentigo.core.errors import DataError
from lentigo.evaluation.figure_style import DOTTED, PALETTE, figure_head, new_figure, quiet_axes, save
from lentigo.evaluation.metrics import Estimate
from lentigo.evaluation.wording import SHARE, count_text, value_text, value_with_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True)
class SubgroupRow:
    """One subgroup's score, undefined where it has too few images; `flagged` where its interval lies apart.

    `n` counts its images. `expected`, where known, is what the classes that occur in it would give if each were
    answered as well as among all images: only what differs from that is the group's own.
    """

    group: str
    name: str
    n: int
    found: Estimate
    expected: float | None = None
    flagged: bool = False


@dataclass(frozen=True, slots=True)
class CorruptionRow:
    """Scores of one kind of corruption at severities 1, 2, ... (None where not judged), and their mean."""

    kind: str
    scores: Sequence[float | None]
    mean: Estimate


def subgroup_forest(
    rows: Sequence[SubgroupRow], overall: Estimate, path: Path, *, metric: str, kind: str = SHARE, note: str = ""
) -> Path:
    """One line per subgroup: score, 95% interval and n, beside the band of all images; flagged ones as diamonds.

    `metric` heads the figure; `kind` says how its values are printed, SHARE or PLAIN. Rows of a group follow
    each other.
    """
    groups = list(dict.fromkeys(row.group for row in rows))
    lines: list[SubgroupRow | str] = []
    for group in groups:
        lines += [group, *(row for row in rows if row.group == group)]
    figure = new_figure(1.5 + 0.24 * len(lines))
    axes = quiet_axes(figure.add_subplot())
    _overall_band(axes, overall)
    bounds = [value for row in rows for value in (row.found.value, row.found.ci_low, row.expected) if value is not None]
    least = max(0.0, np.floor(10 * min([*bounds, 0.9])) / 10)
    for place, line in enumerate(lines):
        if isinstance(line, SubgroupRow):
            _forest_row(axes, place, line, kind, least)
    names = [f"{line.name} · {count_text(line.n)}" if isinstance(line, SubgroupRow) else line for line in lines]
    axes.set_yticks(range(len(lines)), names)
    for text, line in zip(axes.get_yticklabels(), lines, strict=True):
        text.set_fontweight("normal" if isinstance(line, SubgroupRow) else "bold")
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xlim(least, 1)
    axes.grid(axis="x", color=PALETTE["line"], linewidth=0.8)
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}" if kind == SHARE else f"{value:.1f}")
    key = [f"band: all images, n {count_text(overall.n)}, {value_with_interval(overall, kind)}"]
    key += ["diamond: interval apart from that of all"] if any(row.flagged for row in rows) else []
    key += ["tick: expected from its mix of classes"] if any(row.expected is not None for row in rows) else []
    axes.set_xlabel("\n".join(key), fontsize=9, color=PALETTE["muted"])
    figure_head(figure, f"{metric} per subgroup, with 95% interval")
    return save(figure, path, note)


def _overall_band(axes: Axes, overall: Estimate) -> None:
    if overall.value is not None:
        axes.axvline(overall.value, color=PALETTE["muted"], linewidth=1, linestyle=DOTTED)
    if overall.ci_low is not None and overall.ci_high is not None:
        axes.axvspan(overall.ci_low, overall.ci_high, color=PALETTE["grey"], alpha=0.22, linewidth=0)


def _forest_row(axes: Axes, place: int, row: SubgroupRow, kind: str, least: float) -> None:
    found, colour = row.found, PALETTE["orange" if row.flagged else "blue"]
    if found.value is None:
        axes.text(least, place, " not judged", va="center", fontsize=8.5, color=PALETTE["muted"])
        return
    if found.ci_low is not None and found.ci_high is not None:
        axes.plot([found.ci_low, found.ci_high], [place, place], color=colour, linewidth=1.8, solid_capstyle="butt")
    if row.expected is not None:
        axes.plot([row.expected], [place], "|", markersize=11, markeredgewidth=1.6, color=PALETTE["ink"])
    marker, size = ("D", 6.5) if row.flagged else ("o", 5.5)
    axes.plot([found.value], [place], marker, markersize=size, color=colour, clip_on=False)
    axes.annotate(
        value_text(found.value, kind), (1, place), xytext=(8, 0), textcoords="offset points", va="center_baseline",
        fontsize=9, fontweight="bold" if row.flagged else "normal", color=PALETTE["ink"], annotation_clip=False,
    )  # fmt: skip


def robustness(rows: Sequence[CorruptionRow], clean: Estimate, path: Path, *, metric: str, note: str = "") -> Path:
    """A table of scores per kind and severity, the most harmful kind first, shaded by what is lost.

    `clean` is the score of the untouched images; a cell is fully shaded where all of it is lost.

    Raises:
        DataError: where kinds have different numbers of severities.
    """
    from matplotlib.patches import Rectangle

    widths = {len(row.scores) for row in rows}
    if len(widths) != 1 or not rows:
        raise DataError(
            f"expected kinds with the same severities; found {len(rows)} kinds with {sorted(widths)} severities",
            "Judge every kind at every severity, with None where there is no score.",
        )
    severities = widths.pop()
    order = sorted(rows, key=lambda row: (row.mean.value is None, row.mean.value or 0.0, row.kind))
    figure = new_figure(1.25 + 0.255 * len(rows))
    axes = quiet_axes(figure.add_subplot())
    for place, row in enumerate(order):
        for column, score in enumerate(row.scores):
            share = 0.0 if score is None or not clean.value else min(max(1 - score / clean.value, 0.0), 1.0)
            corner = (column - 0.46, place - 0.44)
            axes.add_patch(
                Rectangle(corner, 0.92, 0.88, facecolor=PALETTE["blue"], alpha=0.06 + 0.94 * share, linewidth=0)
            )
            text = "–" if score is None else f"{100 * score:.0f}"
            colour = PALETTE["paper" if share > 0.65 else "ink"]
            axes.text(column, place, text, ha="center", va="center", fontsize=9, color=colour)
        axes.text(
            severities - 0.35, place, value_with_interval(row.mean), va="center", fontsize=9, color=PALETTE["ink"]
        )
    axes.text(severities - 0.35, -0.95, "mean (95%)", va="center", fontsize=9, color=PALETTE["muted"])
    axes.set(xlim=(-0.5, severities + 1.9), ylim=(len(rows) + 0.2, -0.5))
    axes.tick_params(top=False, labeltop=True, labelbottom=False)
    axes.set_xticks(range(severities), [str(severity) for severity in range(1, severities + 1)])
    axes.set_yticks(range(len(rows)), [row.kind.replace("_", " ") for row in order])
    axes.set_xlabel("severity", fontsize=9, color=PALETTE["muted"], loc="left", labelpad=4)
    axes.xaxis.set_label_position("top")
    untouched = f"on untouched images: {value_with_interval(clean)}, n {count_text(clean.n)}"
    axes.text(-0.46, len(rows) - 0.1, untouched, va="center", fontsize=9, color=PALETTE["muted"])
    figure_head(figure, f"{metric} on corrupted images, %")
    return save(figure, path, note)
