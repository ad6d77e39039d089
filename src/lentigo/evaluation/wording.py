"""How numbers are printed wherever a person reads them: figures and the report."""

from __future__ import annotations

from lentigo.evaluation.metrics import Estimate

UNDEFINED = "–"
SHARE, PLAIN = "share", "plain"
_METRICS = {"balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1"}


def count_text(count: int) -> str:
    """`1000`, `10,015`: four digits are read at a glance, more are not."""
    return f"{count:,}" if count >= 10_000 else str(count)


def plural(count: int, noun: str) -> str:
    """`1 image`, `12 images`."""
    return f"{count_text(count)} {noun}" + ("" if count == 1 else "s")


def kept_text(epoch: int, selection_metric: str, score: float | None = None) -> str:
    """`epoch 9, kept for its val macro F1 of 51.0%`, or `epoch 9, kept as the last`.

    `selection_metric`: as in `config.training`. Without a score, the first stops before "of".
    """
    if selection_metric == "last":
        return f"epoch {epoch}, kept as the last"
    reason = f"epoch {epoch}, kept for its val {_METRICS.get(selection_metric, selection_metric)}"
    # nan differs from itself: an epoch that was not judged.
    if score is None or score != score:
        return reason
    return f"{reason} of {value_text(score, PLAIN if selection_metric == 'loss' else SHARE)}"


def value_text(value: float | None, kind: str = SHARE) -> str:
    """`71.3%` for a share in 0..1, `0.934` for anything else, a dash where undefined."""
    if value is None:
        return UNDEFINED
    return f"{100.0 * value:.1f}%" if kind == SHARE else f"{value:.3f}"


def value_with_interval(found: Estimate, kind: str = SHARE) -> str:
    """`71.3% (67.1–75.2)`: the value and, where there is one, its interval."""
    interval = interval_text(found, kind)
    return value_text(found.value, kind) + (f" ({interval})" if interval else "")


def interval_text(estimate: Estimate, kind: str = SHARE) -> str:
    """`67.0–75.2` (per cent where a share), or nothing where there is no interval."""
    if estimate.ci_low is None or estimate.ci_high is None:
        return ""
    if kind == SHARE:
        return f"{100.0 * estimate.ci_low:.1f}–{100.0 * estimate.ci_high:.1f}"
    return f"{estimate.ci_low:.3f}–{estimate.ci_high:.3f}"
