"""Figures as parts of an HTML page: self-contained, in the colours of the page, with a text for screen readers."""

from __future__ import annotations

import base64
import re
from html import escape
from pathlib import Path

from lentigo.core.errors import DataError
from lentigo.evaluation.figure_style import PALETTE

_IMAGE_TYPES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}
_ACTIVE_SVG = re.compile(
    r"<\s*(script|foreignObject|iframe|style|!ENTITY)|\son\w+\s*=|href\s*=\s*[\"'](?!#|data:image/)|url\((?!#)|@import",
    re.IGNORECASE,
)


def figure_html(name: str, source: str | Path, *, description: str, caption: str = "") -> str:
    """A figure element. `source`: SVG text, or the path of an SVG, PNG or JPEG; `name` makes its ids its own.

    Raises:
        DataError: where the text is no SVG, or one that runs or loads something.
    """
    suffix = source.suffix.lower() if isinstance(source, Path) else ".svg"
    if isinstance(source, Path) and suffix in _IMAGE_TYPES:
        picture = image_html(source.read_bytes(), _IMAGE_TYPES[suffix], description)
    else:
        text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
        picture = _inline_svg(name, text, escape(description))
    return f"<figure>{picture}{f'<figcaption>{escape(caption)}</figcaption>' if caption else ''}</figure>"


def image_html(content: bytes, kind: str, description: str) -> str:
    """An image element that holds its own bytes; `kind` is jpeg or png."""
    encoded = base64.b64encode(content).decode("ascii")
    return f'<img alt="{escape(description)}" src="data:image/{kind};base64,{encoded}">'


def plain_words(name: str) -> str:
    """`per_class_val` as `Per class val`."""
    return name.replace("_", " ").capitalize()


def _inline_svg(name: str, text: str, description: str) -> str:
    """A figure as part of the page: no prolog, ids of its own, fluid size, the page's colours.

    Raises:
        DataError: where the text is no SVG, or one that runs or loads something.
    """
    found = re.search(r"<svg\b([^>]*)>(.*)</svg>", text, re.DOTALL)
    if found is None or _ACTIVE_SVG.search(re.sub(r"<style[^>]*>\*\{[-\w:; ]*\}</style>|<!--.*?-->", "", found[0])):
        problem = "no <svg> element" if found is None else "scripts, styles or links to other files"
        raise DataError(
            f"expected the figure {name!r} as a plain SVG; found {problem}",
            "Draw it again with `lentigo report RUN`.",
        )
    view_box = re.search(r'viewBox="[-\d. ]+"', found[1])
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", found[2], flags=re.DOTALL)
    # matplotlib numbers its elements anew in every file; two figures on one page must not share ids.
    prefix = re.sub(r"\W", "-", name)
    body = re.sub(r'(\sid=")', rf"\g<1>{prefix}-", body)
    body = re.sub(r'((?:href="|url\()#)', rf"\g<1>{prefix}-", body)
    ours = PALETTE["paper"] in body
    for role, colour in PALETTE.items():
        body = body.replace(colour, f"var(--{role})")
    # A figure that was drawn elsewhere keeps its colours, on white in both themes.
    kind = "" if ours else ' class="foreign"'
    return f'<svg role="img" aria-label="{description}" {view_box[0] if view_box else ""}{kind}>{body}</svg>'
