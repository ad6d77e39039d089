"""Answers -> one page in one file: a summary, then a row an image with a small picture. It loads nothing from anywhere.

Rows wait in a temporary file until the summary before them is known, so that the memory does not grow with them.
"""

from __future__ import annotations

import base64
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import IO

from PIL import Image

from lentigo.core.files import write_atomic
from lentigo.core.taxonomy import CLASSES
from lentigo.deploy.engine import Failure, Outcome
from lentigo.deploy.outputs import NOTICE, Source
from lentigo.deploy.prediction import Prediction
from lentigo.evaluation.thumbnails import jpeg_thumbnail

MAX_PICTURES = 500
"""More rows come without a picture: a browser shows some thousand rows of text, but not 20 MB of pictures."""
_TEMPLATE = Path(__file__).with_name("predictions.html")
_TRAINED_ON_DRAWINGS = "This model was trained on drawings: its answers say nothing about real lesions."
_NAMES = {one.code: one.name for one in CLASSES}


def write_html(outcomes: Iterable[Outcome], out: Path, source: Source, *, synthetic: bool) -> None:
    """Write the page; outcomes bring `pixels` for the pictures."""

    def write(temporary: Path) -> None:
        head, tail = _TEMPLATE.read_text(encoding="utf-8").split("<!--rows-->")
        with tempfile.TemporaryFile("w+", encoding="utf-8") as rows, temporary.open("w", encoding="utf-8") as page:
            counts, abstained = _write_rows(outcomes, rows)
            head = head.replace("<!--banners-->", _banners(synthetic))
            page.write(head.replace("<!--summary-->", _summary(counts, abstained, source)))
            rows.seek(0)
            shutil.copyfileobj(rows, page)
            page.write(tail)

    write_atomic(out, write)


def _write_rows(outcomes: Iterable[Outcome], rows: IO[str]) -> tuple[Counter[str], Counter[str]]:
    """Images by answer, failures under ""; and how many of these the model abstains from."""
    counts: Counter[str] = Counter()
    abstained: Counter[str] = Counter()
    for number, outcome in enumerate(outcomes):
        answer = outcome.answer
        if isinstance(answer, Failure):
            counts[""] += 1
            rows.write(_failed_row(answer))
        else:
            counts[answer.label] += 1
            abstained[answer.label] += bool(answer.abstain)
            rows.write(_row(answer, _picture(outcome) if number < MAX_PICTURES else ""))
    return counts, abstained


def _banners(synthetic: bool) -> str:
    warning = f"\n<p class='warning'>{_TRAINED_ON_DRAWINGS}</p>" if synthetic else ""
    return f"<p class='notice'>{NOTICE}</p>{warning}"


def _summary(counts: Counter[str], abstained: Counter[str], source: Source) -> str:
    total, failed = sum(counts.values()), counts[""]
    views = f"{source.views} view{'s' if source.views > 1 else ''}"
    lines = [
        f"<h1>{total} image{'s' if total != 1 else ''}</h1>",
        f"<p>Answered by {escape(source.model)}, {source.variant}, {views} an image; graph {source.graph}."
        f"{'' if source.quality_checked else ' The pictures were not checked for quality.'}"
        f"{f' {failed} could not be read.' if failed else ''}"
        f"{f' Pictures of the first {MAX_PICTURES}.' if total > MAX_PICTURES else ''}</p>",
        "<table class='summary'><thead><tr><th>Answer</th><th>Images</th><th>of these abstained from</th></tr></thead>",
        *(
            f"<tr><td>{one.label_text} {one.name}</td><td>{counts[one.code]}</td><td>{abstained[one.code]}</td></tr>"
            for one in CLASSES
        ),
        "</table>",
    ]
    return "\n".join(lines)


def _row(answer: Prediction, picture: str) -> str:
    likely = ", ".join(code.upper() for code in answer.conformal_set)
    remarks = "; ".join(answer.abstain_reasons)
    kind = " class='abstain'" if answer.abstain else ""
    bars = "".join(
        f"<i title='{code.upper()} {value:.3f}'><b style='height:{100 * value:.0f}%'></b></i>"
        for code, value in answer.probs.items()
    )
    spoken = ", ".join(f"{code.upper()} {value:.3f}" for code, value in answer.probs.items())
    return (
        f"<tr{kind}><td>{picture}</td><td class='name'>{escape(answer.name)}</td>"
        f"<td title='{escape(_NAMES[answer.label], quote=True)}'>{answer.label.upper()}</td>"
        f"<td>{answer.confidence:.2f}</td><td><span class='bars' role='img' aria-label='{spoken}'>{bars}</span></td>"
        f"<td>{answer.malignant_risk:.2f}</td><td>{likely}</td><td>{escape(remarks)}</td></tr>\n"
    )


def _failed_row(answer: Failure) -> str:
    return (
        f"<tr class='failed'><td></td><td class='name'>{escape(answer.name)}</td>"
        f"<td colspan='6'>{escape(answer.error)}<br>{escape(answer.remedy)}</td></tr>\n"
    )


def _picture(outcome: Outcome) -> str:
    if outcome.pixels is None:
        return ""
    data = base64.b64encode(jpeg_thumbnail(Image.fromarray(outcome.pixels))).decode("ascii")
    return f"<img alt='' width='80' height='80' src='data:image/jpeg;base64,{data}'>"
