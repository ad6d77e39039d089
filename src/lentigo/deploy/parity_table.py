"""The table of an export for people: on a terminal and in the model card."""

from __future__ import annotations

from collections.abc import Callable

from lentigo.deploy.parity import Int8Record, Parity, VariantParity
from lentigo.deploy.phone_record import phone_notes
from lentigo.evaluation.markdown import plain, table
from lentigo.evaluation.metrics import Estimate
from lentigo.evaluation.wording import UNDEFINED, count_text, plural, value_with_interval


def parity_headers(parity: Parity) -> tuple[str, ...]:
    """One column a variant: `fp32`, `fp32, 4 views`, `int8`."""
    return ("", *(one.variant if one.views == 1 else f"{one.variant}, {one.views} views" for one in parity.variants))


def parity_rows(parity: Parity) -> list[tuple[str, ...]]:
    """One row a measure, below `parity_headers`."""
    return [(name, *(show(one) for one in parity.variants)) for name, show in _MEASURES.items()]


def parity_notes(parity: Parity) -> list[str]:
    """What must be said beside the table."""
    judged = parity.variants[0]
    notes = [
        f"{_millions(parity.parameters)} parameters, {parity.macs / 1e9:.3f} billion multiply-accumulates for one "
        f"view; ONNX opset {parity.opset}.",
        f"Measured on {plural(judged.n_images, f'{parity.split} image')} of {plural(judged.n_lesions, 'lesion')}; in "
        f"brackets {parity.interval}.",
        f"Times: median of {judged.latency.n} runs of one image, finished square to logits, by onnxruntime with "
        f"{plural(judged.latency.threads, 'thread')} on {parity.machine}."
        if judged.latency is not None
        else "Times were not measured.",
        f"Golden inputs: logits within {parity.golden_difference:.2g} of torch's.",
    ]
    if parity.checkpoint != "best":
        notes.append("These are the weights of the last epoch; the scores above are those of the chosen weights.")
    return notes + ([] if parity.int8 is None else _int8_notes(parity.int8)) + phone_notes(parity.phones)


def parity_section(parity: Parity) -> str:
    """The section of the model card, in Markdown."""
    rows = [[plain(cell) for cell in row] for row in parity_rows(parity)]
    notes = "\n".join(f"- {plain(note)}" for note in parity_notes(parity))
    return f"## Exported model\n\n{table(parity_headers(parity), rows)}\n\n{notes}\n"


def _int8_notes(record: Int8Record) -> list[str]:
    kept = record.attempts[-1].kept_float
    floats = f"{len(kept)} stayed in float ({', '.join(kept)})" if kept else "none stayed in float"
    images = sum(record.calibration_images.values())
    classes = ", ".join(f"{code.upper()} {count}" for code, count in record.calibration_images.items())
    notes = [
        f"int8: {plural(record.layers, 'layer')}, {floats}; a scale a channel; ranges from "
        f"{plural(images, 'training image')} ({classes}); {plural(len(record.attempts), 'attempt')} until the gates on "
        "val were passed."
    ]
    speed = record.speed
    if speed is not None:
        what = {
            "faster": "int8 is faster here",
            "slower": "int8 is slower here",
            "no difference measured": "no difference in speed was measured here",
        }[speed.finding]
        notes.append(
            f"Speed: {what}: time of fp32 over int8 {speed.ratio:.2f} (95% interval {speed.ci_low:.2f} to "
            f"{speed.ci_high:.2f}, {speed.n} pairs of runs). Another processor may say otherwise."
        )
    return notes


def _points(found: Estimate | None) -> str:
    """`-0.4 (-1.1 to 0.3)` in points of a hundred."""
    if found is None or found.value is None:
        return UNDEFINED
    text = f"{100 * found.value:+.1f}"
    if found.ci_low is None or found.ci_high is None:
        return text
    return f"{text} ({100 * found.ci_low:+.1f} to {100 * found.ci_high:+.1f})"


def _millions(count: int) -> str:
    """`2.23 million`, or the number itself where it is small."""
    return f"{count / 1e6:.2f} million" if count >= 100_000 else count_text(count)


_MEASURES: dict[str, Callable[[VariantParity], str]] = {
    "size": lambda one: f"{one.size_bytes / 1e6:.2f} MB",
    "largest difference of a logit to torch": lambda one: (
        UNDEFINED if one.max_logit_difference is None else f"{one.max_logit_difference:.2g}"
    ),
    "same answer as torch": lambda one: (
        UNDEFINED if one.top1_agreement is None else value_with_interval(one.top1_agreement)
    ),
    "balanced accuracy": lambda one: value_with_interval(one.balanced_accuracy),
    "balanced accuracy less fp32, points": lambda one: _points(one.balanced_accuracy_difference),
    "melanoma sensitivity": lambda one: (
        f"{value_with_interval(one.melanoma_sensitivity)}, n {count_text(one.melanoma_sensitivity.n)}"
    ),
    "melanoma sensitivity less fp32, points": lambda one: _points(one.melanoma_sensitivity_difference),
    "one image": lambda one: UNDEFINED if one.latency is None else f"{one.latency.median_ms:.1f} ms",
}
