"""The pictures of a run, each drawn to one SVG or PNG file, narrow enough for a phone, with a note below.

The note, which may be empty, says what must not be cut off, such as the notice that the images are drawings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from lentigo.core.errors import DataError
from lentigo.core.taxonomy import CLASS_CODES, CLASSES, NUM_CLASSES
from lentigo.data.catalog import SPLITS, Catalog
from lentigo.evaluation.figure_style import PALETTE, WIDTH_INCHES, head, new_figure, quiet_axes, save
from lentigo.evaluation.metrics import Estimate
from lentigo.evaluation.wording import count_text, kept_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TEXTS = tuple(lesion_class.label_text for lesion_class in CLASSES)
_SPLIT_COLOURS = {"train": "blue", "val": "orange", "test": "green", "extra": "grey", "": "blue"}
_THUMBNAIL_PX = 128


def class_balance(catalog: Catalog, path: Path, *, note: str = "") -> Path:
    """Bars of images per class with their counts, stacked by split where a split was made."""
    figure = new_figure(3.6)
    axes = quiet_axes(figure.add_subplot())
    used = {row.split for row in catalog}
    splits = [name for name in (*SPLITS, "") if name in used]
    start = np.zeros(NUM_CLASSES)
    for name in splits:
        labels = [row.label for row in catalog if row.split == name]
        counts = np.bincount(labels, minlength=NUM_CLASSES)
        colour = PALETTE[_SPLIT_COLOURS[name]]
        axes.barh(_TEXTS, counts, left=start, height=0.66, label=name or "no split", color=colour)
        start = start + counts
    widest = max(float(start.max()), 1.0)
    for place, total in enumerate(start):
        text = f"{count_text(int(total))} · {total / max(len(catalog), 1):.1%}"
        axes.text(total + 0.02 * widest, place, text, va="center", fontsize=9, color=PALETTE["ink"])
    axes.set_xlim(0, widest * 1.32)
    axes.set_yticks(range(NUM_CLASSES), _TEXTS)
    axes.set_ylim(NUM_CLASSES - 0.5, -0.5)
    axes.set_xticks([])
    head(
        axes,
        f"Images per class, {count_text(len(catalog))} in all",
        legend_columns=len(splits) if any(splits) else 0,
    )
    return save(figure, path, note)


def image_grid(
    images: Sequence[Image.Image | NDArray[np.uint8]],
    titles: Sequence[str],
    path: Path,
    *,
    rows: int = 4,
    columns: int = 4,
    heading: str = "",
    note: str = "",
) -> Path:
    """Thumbnails in rows and columns, each under its title; places without an image stay empty.

    images: PIL images or (H, W) or (H, W, 3) uint8 arrays in 0..255, before any normalisation.

    Raises:
        DataError: where titles or places do not fit the images, or an array is not uint8.
    """
    if len(images) != len(titles) or len(images) > rows * columns:
        raise DataError(
            f"expected one title per image and at most {rows * columns} images; "
            f"found {len(images)} images and {len(titles)} titles",
            f"Pass the first {rows * columns} images and their titles.",
        )
    figure = new_figure(WIDTH_INCHES / columns * rows * 1.12 + (0.35 if heading else 0.0), gap_inches=0.05)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image, title in zip(grid.flat, images, titles, strict=False):
        # 'none' keeps the thumbnail's own pixels in the SVG instead of a resampled blur.
        axes.imshow(_thumbnail(image), interpolation="none")
        axes.set_title(title, fontsize=9, pad=3, color=PALETTE["ink"])
    if heading:
        figure.suptitle(heading, x=0.02, ha="left", fontsize=10.5, fontweight="bold", color=PALETTE["ink"])
    return save(figure, path, note)


def _thumbnail(image: Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, longest side at most 128 pixels: sixteen of them stay below half a megabyte."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.shape[2:] not in ((), (3,)) or image.ndim < 2:
            raise DataError(
                f"expected images (H, W) or (H, W, 3) uint8; found {image.shape} {image.dtype}",
                "Pass images before normalisation, or undo it first.",
            )
        image = Image.fromarray(image)
    thumbnail = image.convert("RGB")
    thumbnail.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.LANCZOS)
    return np.asarray(thumbnail)


def curves(
    log_rows: Sequence[Mapping[str, float]],
    path: Path,
    *,
    kept_epoch: int | None = None,
    selection_metric: str = "balanced_accuracy",
    note: str = "",
) -> Path:
    """Loss and accuracy of train and val per epoch, one above the other, the epoch marked whose weights were kept.

    Each row has `epoch` and any of `train_loss`, `val_loss` (nats), `train_accuracy`, `val_accuracy`,
    `val_balanced_accuracy` (0..1); absent and nan values are gaps. `selection_metric` chose `kept_epoch`;
    where that is None, nothing is marked.

    Raises:
        DataError: where there are no rows or a row has no epoch.
    """
    if not log_rows or any("epoch" not in row for row in log_rows):
        raise DataError(
            f"expected a training log with the column epoch; found {len(log_rows)} rows without it",
            "Train at least one epoch, or pass the run's log.csv.",
        )
    figure = new_figure(5.6)
    loss_axes, accuracy_axes = figure.subplots(2, 1, sharex=True)
    _panel(loss_axes, log_rows, "Loss", {"train_loss": "train", "val_loss": "val"})
    lines = {"train_accuracy": "train", "val_accuracy": "val", "val_balanced_accuracy": "val, balanced"}
    _panel(accuracy_axes, log_rows, "Accuracy", lines)
    loss_axes.set_ylim(0, 1.08 * loss_axes.dataLim.ymax if loss_axes.has_data() else 1)
    accuracy_axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    epochs = [float(row["epoch"]) for row in log_rows]
    accuracy_axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    accuracy_axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    for axes in (loss_axes, accuracy_axes) if kept_epoch is not None else ():
        axes.axvline(kept_epoch, color=PALETTE["muted"], linewidth=1.1, linestyle=(0, (2, 2)), zorder=0)
    mark = "" if kept_epoch is None else f"\ndotted line: {kept_text(kept_epoch, selection_metric)}"
    accuracy_axes.set_xlabel(f"epoch{mark}", fontsize=9, color=PALETTE["muted"])
    return save(figure, path, note)


def _panel(axes: Axes, log_rows: Sequence[Mapping[str, float]], heading: str, lines: Mapping[str, str]) -> None:
    """One panel: a line per log column that has values. Dashes tell train from val without colour."""
    quiet_axes(axes)
    axes.grid(axis="y", color=PALETTE["line"], linewidth=0.8)
    styles = {"train": ("orange", (0, (4, 1.5))), "val": ("blue", "-"), "val, balanced": ("green", "-")}
    drawn = 0
    for column, name in lines.items():
        values = [_number(row.get(column)) for row in log_rows]
        if not np.isfinite(values).any():
            continue
        colour, dashes = styles[name]
        # A single epoch has no line to draw: markers keep it visible.
        marker = "o" if len(values) < 4 else ""
        epochs = [float(row["epoch"]) for row in log_rows]
        axes.plot(epochs, values, PALETTE[colour], ls=dashes, lw=1.8, marker=marker, label=name)
        drawn += 1
    axes.margins(y=0.08)
    head(axes, heading, legend_columns=drawn)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def confusion(counts: ArrayLike, path: Path, *, note: str = "") -> Path:
    """A confusion matrix: counts printed, cells shaded by the share of their row.

    counts: (7, 7), rows true classes, columns answers, as in `Judgement.confusion`.

    Raises:
        DataError: on another shape.
    """
    from matplotlib.patches import Rectangle

    table = np.asarray(counts, dtype=np.int64)
    if table.shape != (NUM_CLASSES, NUM_CLASSES):
        raise DataError(
            f"expected a confusion matrix ({NUM_CLASSES}, {NUM_CLASSES}); found {table.shape}",
            "Pass `Judgement.confusion`.",
        )
    totals = table.sum(axis=1)
    shares = table / np.maximum(totals, 1)[:, None]
    figure = new_figure(4.5)
    axes = quiet_axes(figure.add_subplot())
    for row, column in np.ndindex(*table.shape):
        share, count = float(shares[row, column]), int(table[row, column])
        corner, alpha = (column - 0.47, row - 0.47), 0.05 + 0.95 * share
        axes.add_patch(Rectangle(corner, 0.94, 0.94, facecolor=PALETTE["blue"], alpha=alpha, linewidth=0))
        colour = "paper" if share > 0.5 else "ink" if count else "grey"
        axes.text(column, row, count_text(count), ha="center", va="center", fontsize=9, color=PALETTE[colour])
    axes.set(xlim=(-0.5, NUM_CLASSES - 0.5), ylim=(NUM_CLASSES - 0.5, -0.5), aspect="equal")
    axes.tick_params(top=False, labeltop=True, labelbottom=False, labelsize=8.5)
    axes.set_xticks(range(NUM_CLASSES), _TEXTS)
    axes.set_yticks(
        range(NUM_CLASSES), [f"{text} · {count_text(int(n))}" for text, n in zip(_TEXTS, totals, strict=True)]
    )
    axes.set_xlabel("answered", fontsize=9, color=PALETTE["muted"], labelpad=6)
    axes.xaxis.set_label_position("top")
    axes.set_ylabel("true class · images", fontsize=9, color=PALETTE["muted"])
    return save(figure, path, note)


def per_class_bars(recall: Mapping[str, Estimate], path: Path, *, note: str = "") -> Path:
    """Recall of each class with its 95% interval; a class without images says so.

    recall: lower-case class code -> estimate, `{code: c.recall for code, c in judgement.per_class.items()}`.
    """
    figure = new_figure(3.6)
    axes = quiet_axes(figure.add_subplot())
    blue, ink = PALETTE["blue"], PALETTE["ink"]
    found = [recall.get(code, Estimate(None, None, None, 0)) for code in CLASS_CODES]
    for place, one in enumerate(found):
        if one.value is None:
            axes.text(0.01, place, "no images", va="center", fontsize=9, color=PALETTE["muted"])
            continue
        axes.barh(place, one.value, height=0.62, color=blue, alpha=0.3, linewidth=0)
        if one.ci_low is not None and one.ci_high is not None:
            axes.plot([one.ci_low, one.ci_high], [place, place], color=blue, linewidth=2)
        axes.plot([one.value], [place], "o", markersize=6, color=blue, clip_on=False)
        axes.text(1.04, place, f"{one.value:.0%}", va="center", fontsize=9.5, color=ink, clip_on=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(NUM_CLASSES - 0.4, -0.6)
    names = [f"{text} · {count_text(one.n)}" for text, one in zip(_TEXTS, found, strict=True)]
    axes.set_yticks(range(NUM_CLASSES), names)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25", "50", "75", "100%"])
    axes.grid(axis="x", color=PALETTE["line"], linewidth=0.8)
    head(axes, "Recall per class, with 95% interval")
    return save(figure, path, note)
