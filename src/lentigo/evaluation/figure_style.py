"""How every figure looks and is written: colours by role, a blank sheet, a heading, a note, one file.

matplotlib is imported inside the functions; its pyplot state is never touched.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lentigo.core.errors import ConfigError, MissingExtraError
from lentigo.core.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE: Mapping[str, str] = {
    "paper": "#fefefd",
    "ink": "#1d2530",
    "muted": "#626c78",
    "line": "#dce0e5",
    "blue": "#0171b1",
    "orange": "#d98a02",
    "green": "#019e74",
    "grey": "#9aa5b1",
}
"""Role -> colour; hues after Okabe & Ito (2008), told apart under every colour blindness.

Each is a shade off the usual value, so that the report, which replaces them by its own in light and dark,
never recolours a figure that was drawn elsewhere.
"""

WIDTH_INCHES = 4.8
"""346 points: on a phone a point is about a pixel, so 9-point text stays 9 pixels."""
DOTTED = (0, (1, 1.6))
DASHED = (0, (4, 1.5))
SHARE_TICKS = ([0, 0.25, 0.5, 0.75, 1.0], ["0", "25", "50", "75", "100%"])
"""Places and texts of the ticks of an axis from 0 to 1."""
_PNG_DOTS_PER_INCH = 200
_SETTINGS: Mapping[str, object] = {
    "svg.hashsalt": "lentigo",
    # Text stays text: sharp, small, selectable, and the report's own typeface applies.
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "path.simplify": False,
}


def new_figure(height_inches: float, *, gap_inches: float = 0.12) -> Figure:
    """A blank sheet of the common width; `gap_inches` is kept free around every panel."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingExtraError("matplotlib", "train") from None
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    margins = ConstrainedLayoutEngine(w_pad=gap_inches, h_pad=gap_inches, hspace=0.02, wspace=0.02)
    return Figure(figsize=(WIDTH_INCHES, height_inches), layout=margins, facecolor=PALETTE["paper"])


def quiet_axes(axes: Axes) -> Axes:
    """No frame, no ticks, pale lines: only the data speaks."""
    axes.set_facecolor("none")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=9, labelcolor=PALETTE["ink"])
    axes.set_axisbelow(True)
    return axes


def head(axes: Axes, text: str, *, legend_columns: int = 0) -> None:
    """A heading at the left edge of the panel, and a legend of so many columns without a box below it."""
    distance = 28 if legend_columns else 10
    axes.set_title(text, loc="left", fontsize=10.5, fontweight="bold", color=PALETTE["ink"], pad=distance)
    if legend_columns:
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.01, 1.01), ncols=legend_columns, frameon=False, fontsize=9,
            borderpad=0, handlelength=1.6, handletextpad=0.5, columnspacing=1.4, labelcolor=PALETTE["ink"],
        )  # fmt: skip


def figure_head(figure: Figure, text: str) -> None:
    """A heading at the left edge of the sheet, for figures whose panels begin further right."""
    figure.suptitle(text, x=0.02, ha="left", fontsize=10.5, fontweight="bold", color=PALETTE["ink"])


def save(figure: Figure, path: Path, note: str) -> Path:
    """Write the figure with its note below; the suffix chooses the format, equal figures give equal bytes.

    Raises:
        ConfigError: on another suffix than .svg, .png or .jpg.
    """
    suffix = path.suffix.lower()
    if suffix not in (".svg", ".png", ".jpg"):
        raise ConfigError(f"expected a figure file .svg, .png or .jpg; found {path.name}", "Rename the output file.")
    if note:
        lines = textwrap.fill(" ".join(note.split()), width=68)
        figure.supxlabel(
            lines,
            x=0.02,
            ha="left",
            fontsize=8,
            color=PALETTE["muted"],
        )
    # Dates and version strings would change the bytes from one day or machine to the next.
    dated = {".svg": ("Date", "Creator", "Format", "Type"), ".png": ("Software",), ".jpg": ()}
    metadata = dict.fromkeys(dated[suffix]) or None

    def write(temporary: Path) -> None:
        from matplotlib import rc_context

        with rc_context(dict(_SETTINGS)):
            figure.savefig(temporary, format=suffix[1:], dpi=_PNG_DOTS_PER_INCH, metadata=metadata)

    return write_atomic(path, write)
