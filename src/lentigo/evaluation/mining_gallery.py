"""What a round of hard mining chose, as a section of the report, and its suspects as a CSV for review."""

from __future__ import annotations

import csv
import io
from collections import Counter
from html import escape
from pathlib import Path

import numpy as np

from lentigo.core.errors import DataError
from lentigo.core.files import write_text_atomic
from lentigo.core.run_dir import RunDir
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.catalog import Catalog, Row
from lentigo.data.images import load_image
from lentigo.evaluation.report_figures import image_html
from lentigo.evaluation.report_tables import class_text
from lentigo.evaluation.thumbnails import jpeg_thumbnail
from lentigo.training.mining_table import RoundTable

SHOWN = 12
PAIRS = 8
_SUSPECT_HEADER = ("image_id", "lesion_id", "label", "answered", "wrong_confidence", "agreement", "file")


def write_suspects(run: RunDir, table: RoundTable, catalog: Catalog) -> Path:
    """mining/suspects.csv: images whose label models and neighbours contradict, the surest first; perhaps none."""
    files = {row.image_id: row.path.name for row in catalog}
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_SUSPECT_HEADER)
    for i in suspects(table):
        codes = (CLASS_CODES[table.label[i]], CLASS_CODES[table.answered[i]])
        numbers = (f"{table.wrong_confidence[i]:.4f}", f"{table.agreement[i]:.4f}")
        writer.writerow((table.image_id[i], table.lesion_id[i], *codes, *numbers, files.get(table.image_id[i], "")))
    return write_text_atomic(run.mining / "suspects.csv", buffer.getvalue())


def suspects(table: RoundTable) -> list[int]:
    """Places of the suspects, the surest wrong answer first."""
    return [int(i) for i in np.argsort(-table.wrong_confidence, kind="stable") if table.suspect[i]]


def confused_pairs(table: RoundTable) -> list[tuple[str, str, int, int]]:
    """(true code, answered code, images, images of the true class), the most frequent confusion first."""
    wrong = table.answered != table.label
    counts = Counter(zip(table.label[wrong].tolist(), table.answered[wrong].tolist(), strict=True))
    sizes = np.bincount(table.label, minlength=len(CLASS_CODES))
    return [
        (CLASS_CODES[true], CLASS_CODES[answer], count, int(sizes[true]))
        for (true, answer), count in counts.most_common(PAIRS)
    ]


def mining_section(run: RunDir, catalog: Catalog) -> str:
    """The section's HTML for the run's last round; empty for a run without one. Moved images leave no picture."""
    if not run.mining_rounds:
        return ""
    path = run.mining_rounds[-1]
    table, rows = RoundTable.from_csv(path), {row.image_id: row for row in catalog}
    hardest = [int(i) for i in np.argsort(-table.hardness, kind="stable") if not table.suspect[i]][:SHOWN]
    doubtful = suspects(table)
    boosted, left_out = int((table.weight > 1).sum()), int((table.weight == 0).sum())
    parts = [
        f"<p>{len(table)} training images scored: {boosted} boosted, {left_out} left out, {len(doubtful)} suspect of a "
        f"wrong label and listed in mining/suspects.csv. All are in mining/{path.name}.</p>",
        "<h3>Hardest</h3><p>Least probability of the true class, suspects aside.</p>",
        _gallery(table, hardest, rows),
    ]
    if doubtful:
        parts += [
            "<h3>Most suspect</h3><p>Every out-of-fold model and the nearest neighbours contradict the label.</p>",
            _gallery(table, doubtful[:SHOWN], rows),
        ]
    pairs = confused_pairs(table)
    if pairs:
        cells = "".join(
            f"<tr><td>{class_text(true)}</td><td>{class_text(answer)}</td>"
            f"<td>{count}</td><td>{count / size:.0%}</td></tr>"
            for true, answer, count, size in pairs
        )
        head = "<tr><th>class</th><th>answered</th><th>images</th><th>of the class</th></tr>"
        parts.append(f"<h3>Most confused pairs</h3><table><thead>{head}</thead><tbody>{cells}</tbody></table>")
    return "".join(parts)


def _gallery(table: RoundTable, places: list[int], rows: dict[str, Row]) -> str:
    return f'<div class="gallery">{"".join(_item(table, i, rows) for i in places)}</div>'


def _item(table: RoundTable, place: int, rows: dict[str, Row]) -> str:
    truth, answer = class_text(CLASS_CODES[table.label[place]]), class_text(CLASS_CODES[table.answered[place]])
    row = rows.get(table.image_id[place])
    try:
        image = None if row is None else load_image(row.path, row.member)
    except DataError:
        image = None
    picture = ""
    if image is not None:
        picture = image_html(jpeg_thumbnail(image), "jpeg", f"{truth}, answered as {answer}")
    kind, mark = ("right", "✓") if truth == answer else ("wrong", "✗")
    numbers = f"p {table.mean_confidence[place]:.2f}, weight {table.weight[place]:.1f}"
    name = escape(table.image_id[place])
    return (
        f'<figure>{picture}<figcaption title="{name}">{truth}<br><span class="{kind}">{mark} {answer}</span><br>'
        f"{numbers}</figcaption></figure>"
    )
