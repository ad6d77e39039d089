"""Overlays of a run as part of the report: small pictures by why they were chosen, with truth and answer below."""

from __future__ import annotations

from html import escape

from lentigo.core.run_dir import RunDir
from lentigo.evaluation.explain_run import ExplainedImage, Explanations, overlay_thumbnails
from lentigo.evaluation.report_figures import image_html
from lentigo.evaluation.report_tables import class_text
from lentigo.evaluation.wording import plural

SHOWN = 12
"""Of each kind: `lentigo explain --count 200` draws more than a report of 5 MB can hold."""
_INTRODUCTION = (
    "Yellow and green show what spoke most for the class; where nothing did, the picture is untouched. Below each "
    "image the true class, the answer and its probability. A map on the lesion does not mean good reasons."
)


def overlay_gallery(run: RunDir, found: Explanations) -> str:
    """HTML of the overlays that are still there, in the order of `found`; empty where there is none."""
    by_why: dict[str, list[tuple[ExplainedImage, bytes]]] = {}
    for one, thumbnail in overlay_thumbnails(run, found):
        by_why.setdefault(one.why, []).append((one, thumbnail))
    if not by_why:
        return ""
    parts = [f"<p>{_INTRODUCTION}</p>"]
    for why, items in by_why.items():
        count = plural(len(items), f"{found.split or 'given'} image")
        shown = f"; {SHOWN} are shown" if len(items) > SHOWN else ""
        parts.append(f"<h3>{escape(why.capitalize())}: {escape(count)}{shown}</h3>")
        parts.append(f'<div class="gallery">{"".join(_item(*item) for item in items[:SHOWN])}</div>')
    return "".join(parts)


def _item(one: ExplainedImage, thumbnail_jpeg: bytes) -> str:
    answer, shown = class_text(one.answer), class_text(one.shown)
    truth = "unknown" if one.truth is None else class_text(one.truth)
    kind, mark = ("right", "✓") if one.truth == one.answer else ("wrong", "✗")
    caption = f'{truth} → <span class="{kind}">{mark} {answer}</span> {one.probability:.0%}'
    if one.shown != one.answer:
        caption += f"<br>evidence for {shown}, {one.shown_probability:.0%}"
    # The codes are class_text's, which is escaped already, as is what image_html is given.
    picture = image_html(thumbnail_jpeg, "jpeg", f"Evidence for {shown} on a lesion that is {truth}, answered {answer}")
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"
