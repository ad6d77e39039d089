"""The report's numbers as HTML: headline, key numbers, per-class table, confusion matrix, epochs.

Every function returns one HTML fragment; every string from outside goes through `html.escape`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from lentigo.core.taxonomy import CLASSES, find_label
from lentigo.evaluation.card_facts import ScoreTable
from lentigo.evaluation.evaluate import ClassJudgement, Judgement
from lentigo.evaluation.metrics import Estimate
from lentigo.evaluation.subgroups import SubgroupAudit
from lentigo.evaluation.wording import PLAIN, SHARE, UNDEFINED, count_text, interval_text, plural, value_text

KEY_NUMBERS = {
    "balanced_accuracy": ("Balanced accuracy", SHARE),
    "accuracy": ("Accuracy", SHARE),
    "macro_f1": ("Macro F1", SHARE),
    "macro_auc": ("Macro AUC", PLAIN),
    "log_loss": ("Log loss, nats", PLAIN),
}
_BASELINE_AUC = 0.5
"""A constant answer ranks nothing: every pair is a tie."""
_MOST_ROWS = 12
"""Longer tables of scores are folded away."""
_EPOCH_COLUMNS = {
    "train_loss": ("Train loss", PLAIN),
    "val_loss": ("Val loss", PLAIN),
    "train_accuracy": ("Train acc.", SHARE),
    "val_accuracy": ("Val acc.", SHARE),
    "val_balanced_accuracy": ("Val bal. acc.", SHARE),
}


def class_text(code: str) -> str:
    """The printed, escaped code of a class; an unknown one as it is."""
    label = find_label(code)
    return escape(code if label is None else CLASSES[label].label_text)


def headline(judgement: Judgement) -> str:
    """The answer in one sentence, and what a constant answer would score."""
    balanced, baseline = judgement.metrics["balanced_accuracy"], judgement.majority_baseline
    interval = interval_text(balanced)
    interval_part = f"(95% CI {interval}) " if interval else "(no interval) "
    images = plural(judgement.n_images, f"{judgement.split} image")
    evidence = escape(f"{images} of {plural(judgement.n_lesions, 'lesion')}")
    score = value_text(balanced.value)
    return (
        f'<p class="headline"><span class="headline-score">Balanced accuracy {score}</span> '
        f"{interval_part}on {evidence}</p>"
        f'<p class="versus">Always answering {class_text(baseline.code)} would score '
        f"{value_text(baseline.balanced_accuracy)}, and {value_text(baseline.accuracy)} plain accuracy.</p>"
    )


def key_numbers(judgement: Judgement) -> str:
    """The other scores beside the headline, each with its interval and the baseline's score."""
    baseline = judgement.majority_baseline
    constant = {"accuracy": baseline.accuracy, "macro_f1": baseline.macro_f1, "macro_auc": _BASELINE_AUC}
    cards = []
    for name, (text, kind) in list(KEY_NUMBERS.items())[1:]:
        found = judgement.metrics[name]
        versus = f"always {class_text(baseline.code)}: {value_text(constant[name], kind)}" if name in constant else ""
        cards.append(
            f"<div><dt>{text}</dt><dd>{_value(found, kind)}"
            f'<span class="versus-small">{versus or "lower is better"}</span></dd></div>'
        )
    return f'<dl class="key-numbers">{"".join(cards)}</dl>'


def splits_table(judgements: Sequence[Judgement]) -> str:
    """One column per judged split, which fits a phone; one row per score."""
    head = "".join(
        f'<th scope="col">{escape(one.split)}<span class="sub">{plural(one.n_images, "image")}</span></th>'
        for one in judgements
    )
    rows = "".join(
        f'<tr><th scope="row">{text}</th>'
        + "".join(f"<td>{_value(one.metrics[name], kind)}</td>" for one in judgements)
        + "</tr>"
        for name, (text, kind) in KEY_NUMBERS.items()
    )
    return (
        '<table class="numbers few"><caption>Scores with 95% intervals</caption>'
        f'<thead><tr><th scope="col">Score</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )


def per_class_table(judgement: Judgement) -> str:
    """Precision, recall, F1 and AUC of each class with intervals; recall also as dot and whisker."""
    rows = "".join(_class_row(code, scores) for code, scores in judgement.per_class.items())
    others = "".join(f'<th scope="col">{text}</th>' for text in ("Precision", "F1", "AUC"))
    return (
        '<table class="numbers per-class">'
        f"<caption>Each class against the rest, {escape(judgement.split)} split, with 95% intervals</caption>"
        '<thead><tr><th scope="col">Class</th><th scope="col" class="wide">Images</th>'
        f'<th scope="col">Recall</th><td class="wide plot"></td>{others}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _class_row(code: str, scores: ClassJudgement) -> str:
    label = find_label(code)
    name = "" if label is None else CLASSES[label].name
    others = "".join(
        f"<td>{_value(found, kind)}</td>"
        for found, kind in ((scores.precision, SHARE), (scores.f1, SHARE), (scores.auc, PLAIN))
    )
    return (
        f'<tr><th scope="row">{class_text(code)}<span class="sub wide">{escape(name)}</span>'
        f'<span class="sub narrow">n {count_text(scores.n)}</span></th>'
        f'<td class="wide">{count_text(scores.n)}</td><td>{_value(scores.recall, SHARE)}</td>'
        f'<td class="wide plot">{_whisker(scores.recall)}</td>{others}</tr>'
    )


def score_table(table: ScoreTable) -> str:
    """Scores with interval and n under a caption; many are folded away."""
    rows = "".join(
        f'<tr><th scope="row">{escape(one.name)}</th><td>{_value(one.found, one.kind)}</td>'
        f"<td>{count_text(one.found.n)}</td></tr>"
        for one in table.scores
    )
    body = (
        '<table class="numbers few">'
        f"<caption>{escape(table.title)}, with 95% intervals</caption>"
        '<thead><tr><th scope="col">Score</th><th scope="col">Value</th><th scope="col">n</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
    text = f"<p>{escape(table.text)}</p>" if table.text else ""
    if len(table.scores) <= _MOST_ROWS:
        return text + body
    return f"{text}<details><summary>{escape(table.title)}: all {len(table.scores)} numbers</summary>{body}</details>"


def subgroup_table(audit: SubgroupAudit) -> str:
    """Every subgroup with all scores, folded away; a flag where only the group's own explains what differs."""
    names = {name: name.replace("_", " ").capitalize() for name in audit.whole}
    head = "".join(f'<th scope="col">{text}</th>' for text in names.values())
    rows = [f'<tr><th scope="row">All</th><td>{count_text(audit.n_images)}</td>{_cells(audit.whole, names, ())}</tr>']
    for group in audit.groups:
        scores = (
            _cells(group.scores, names, group.unexplained)
            if group.judged
            else f'<td colspan="{len(names)}">too few to judge</td>'
        )
        name = f"{group.dimension.replace('_', ' ')}: {group.name}"
        rows.append(f'<tr><th scope="row">{escape(name)}</th><td>{count_text(group.n_images)}</td>{scores}</tr>')
    return (
        '<details><summary>Every subgroup and score</summary><div class="scroll"><table class="numbers">'
        "<caption>95% intervals; a flag (⚑) where the interval lies apart from that of all images and the mix of "
        "classes does not explain it</caption>"
        f'<thead><tr><th scope="col">Subgroup</th><th scope="col">Images</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _cells(scores: Mapping[str, Estimate], names: Mapping[str, str], flagged: Sequence[str]) -> str:
    cells = []
    for name in names:
        flag = '<span class="sub">⚑ flagged</span>' if name in flagged else ""
        cells.append(f"<td>{_value(scores[name], PLAIN if name.endswith('auc') else SHARE)}{flag}</td>")
    return "".join(cells)


def confusion_table(judgement: Judgement) -> str:
    """Counts, each cell shaded by its share of the true class."""
    head = "".join(f'<th scope="col">{class_text(code)}</th>' for code in judgement.classes)
    rows = []
    for code, counts in zip(judgement.classes, judgement.confusion, strict=True):
        total = max(sum(counts), 1)
        cells = "".join(_cell(count, count / total) for count in counts)
        rows.append(f'<tr><th scope="row">{class_text(code)}</th>{cells}</tr>')
    return (
        f'<table class="confusion"><caption>Confusion matrix, {escape(judgement.split)} split: rows are the '
        "true class, columns the answer; the shade is the share of the row</caption>"
        f"<thead><tr><td></td>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _cell(count: int, share: float) -> str:
    style = f' style="--share:{100 * share:.0f}%"' if count else ""
    kind = "zero" if not count else "full" if share > 0.5 else "part"
    return f'<td class="{kind}"{style}>{count_text(count)}</td>'


def epochs_table(log_rows: Sequence[Mapping[str, float]]) -> str:
    """The training log, folded away."""
    columns = {key: text for key, text in _EPOCH_COLUMNS.items() if any(key in row for row in log_rows)}
    head = "".join(f'<th scope="col">{text}</th>' for text, _ in columns.values())
    rows = "".join(
        f'<tr><th scope="row">{row["epoch"]:g}</th>'
        + "".join(f"<td>{_logged(row.get(key), kind)}</td>" for key, (_, kind) in columns.items())
        + "</tr>"
        for row in log_rows
    )
    return (
        '<details><summary>Epoch by epoch</summary><div class="scroll"><table class="numbers">'
        f'<caption>Training log</caption><thead><tr><th scope="col">Epoch</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def _logged(value: float | None, kind: str) -> str:
    # nan is the only value that differs from itself; a log has it where a split was not judged.
    return value_text(None if value is None or value != value else value, kind)


def _value(found: Estimate, kind: str) -> str:
    """The score with its interval below."""
    if found.value is None:
        return f'<span class="value" title="undefined">{UNDEFINED}</span><span class="interval">undefined</span>'
    return (
        f'<span class="value">{value_text(found.value, kind)}</span>'
        f'<span class="interval">{interval_text(found, kind) or "no interval"}</span>'
    )


def _whisker(found: Estimate) -> str:
    """Dot and interval on a 0..100% axis; the numbers stand beside it, so screen readers skip it."""
    if found.value is None:
        return ""
    low = found.value if found.ci_low is None else found.ci_low
    high = found.value if found.ci_high is None else found.ci_high
    return (
        '<span class="whisker" aria-hidden="true">'
        f'<i style="left:{100 * low:.1f}%;right:{100 - 100 * high:.1f}%"></i>'
        f'<b style="left:{100 * found.value:.1f}%"></b></span>'
    )
