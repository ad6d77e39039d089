"""Leaderboards as text: the cells of a table, for terminals and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lentigo.evaluation.arms import TEST_NOTICE
from lentigo.evaluation.ensemble import Member
from lentigo.evaluation.leaderboard import Leaderboard, LeaderboardRow, Leaderboards
from lentigo.evaluation.metrics import Estimate
from lentigo.evaluation.resampling import metric_text
from lentigo.evaluation.wording import PLAIN, SHARE, UNDEFINED, interval_text, plural, value_text

SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "malignant_auc")
_KINDS = {"accuracy": SHARE, "balanced_accuracy": SHARE, "macro_f1": SHARE}


Cells = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Headers and rows."""


def score_cells(table: Leaderboard) -> Cells:
    """The scores of every run; the metric that sorts comes first."""
    metrics = (table.metric, *(name for name in SHOWN if name != table.metric))
    rows = [
        (
            row.name,
            *(score_text(row.scores[name], name) for name in metrics),
            difference_text(row, table.metric),
            _p_text(row),
        )
        for row in table.rows
    ]
    return ("run", *(metric_text(name) for name in metrics), "against the best", "Holm p"), rows


def cost_cells(table: Leaderboard) -> Cells:
    """What every run costs, in the same order; the latency has a column where it was measured."""
    timed = any(row.latency is not None for row in table.rows)
    headers = ("run", "network", "M parameters", "G MACs", "MB float32", "MB float16", "min trained", "test looks")
    rows = [
        (
            row.name,
            network_text(row.members),
            f"{row.cost.parameters / 1e6:.2f}",
            f"{row.cost.macs / 1e9:.2f}",
            f"{row.cost.float32_mb:.1f}",
            f"{row.cost.float16_mb:.1f}",
            UNDEFINED if row.training_min is None else f"{row.training_min:.0f}",
            str(row.test_looks),
            *((_latency_text(row),) if timed else ()),
        )
        for row in table.rows
    ]
    return (*headers, *(("ms an image",) if timed else ())), rows


def score_text(estimate: Estimate, metric: str) -> str:
    """`71.3% (67.0–75.2)`, or without the interval where there is none."""
    kind = _KINDS.get(metric, PLAIN)
    interval = interval_text(estimate, kind)
    return value_text(estimate.value, kind) + (f" ({interval})" if interval else "")


def network_text(members: Sequence[Member]) -> str:
    """`mobilenet_v2, gray 224 px, 4 views`, or `3 runs: mobilenet_v2, mobilenet_v3_large`."""
    if len(members) > 1:
        return f"{len(members)} runs: {', '.join(dict.fromkeys(member.architecture for member in members))}"
    (one,) = members
    views = f", {one.views} views" if one.views > 1 else ""
    return f"{one.architecture}, {one.color_mode} {one.input_size_px} px{views}"


def difference_text(row: LeaderboardRow, metric: str) -> str:
    """`-1.9 (-4.0 to +0.2)` in points of per cent, or in the metric's unit; `best` for the best one."""
    found = row.against_best
    if found is None:
        return "best" if row.scores[metric].value is not None else UNDEFINED
    if found.value is None:
        return UNDEFINED
    factor, digits = (100.0, 1) if _KINDS.get(metric) == SHARE else (1.0, 3)
    value = f"{factor * found.value:+.{digits}f}"
    if found.ci_low is None or found.ci_high is None:
        return value
    return f"{value} ({factor * found.ci_low:+.{digits}f} to {factor * found.ci_high:+.{digits}f})"


def _p_text(row: LeaderboardRow) -> str:
    found = row.against_best
    return "" if found is None else UNDEFINED if found.p_holm is None else f"{found.p_holm:.2g}"


def _latency_text(row: LeaderboardRow) -> str:
    time = row.latency
    return UNDEFINED if time is None else f"{time.median_ms:.1f} ({time.low_ms:.1f}–{time.high_ms:.1f})"


def leaderboard_notes(table: Leaderboard) -> list[str]:
    """What must be known to read the table, one sentence or two a line."""
    notes = [
        f"{table.split}: {plural(table.n_images, 'image')} of {plural(table.n_lesions, 'lesion')}, rows "
        f"{table.rows_sha256[:12]}; brackets: {table.interval}, {table.resamples} resamples.",
    ]
    if len(table.rows) > 1:
        notes.append(
            f"Against the best: {metric_text(table.metric)} minus that of the best, paired bootstrap of lesions; "
            f"Holm p over {len(table.rows) - 1} of them. The best was chosen by these scores, which flatters it; a run "
            "is one training, and other seeds may differ by as much (`lentigo compare` takes several)."
        )
    notes.append(
        "MACs: multiply-accumulates for one image with all its views. Megabytes: 10^6 bytes. Minutes: of each run "
        "itself on its own machine, without parents and teachers."
    )
    times = [row.latency for row in table.rows if row.latency is not None]
    if times:
        notes.append(
            f"ms an image: median and quartiles of {times[0].n} warm runs on this machine, float32, "
            f"{plural(times[0].threads, 'thread')}, image alone."
        )
    if table.split == "test":
        notes.append(TEST_NOTICE)
    if table.notice:
        notes.append(table.notice)
    return notes


def leaderboard_markdown(found: Leaderboards) -> str:
    """All tables as one Markdown page."""
    parts = ["# Leaderboard"]
    for table in found.tables:
        parts.append(f"## {table.split}, rows {table.rows_sha256[:12]}")
        for headers, rows in (score_cells(table), cost_cells(table)):
            parts.append("\n".join([_line(headers), "|---" * len(headers) + "|", *(_line(row) for row in rows)]))
        parts += leaderboard_notes(table)
    if found.left_out:
        left_out = ", ".join(f"{name} ({reason})" for name, reason in found.left_out.items())
        parts.append(f"Left out: {left_out}.")
    return "\n\n".join(parts) + "\n"


def _line(cells: Iterable[str]) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"
