"""docs/reference/api.md: every public name of the package, and docstrings as Markdown."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from functools import cached_property
from typing import Any

import lentigo
from lentigo.evaluation.markdown import table

NOTE = "Written by `python docs/generate.py` from the code."


def api_page() -> str:
    """docs/reference/api.md: every name of `lentigo.__all__`."""
    parts = [
        "# Python",
        NOTE,
        "Every name can be imported from `lentigo` and stays. Importing costs nothing that is not used; what needs a "
        "package that is not installed says which. How to use the classifier in more depth: "
        "[the classifier from Python](../how-to/classifier.md).",
    ]
    for name in lentigo.__all__:
        parts += _api_entry(name, getattr(lentigo, name))
    return "\n\n".join(parts) + "\n"


def _api_entry(name: str, thing: Any) -> list[str]:
    """Heading, signature and docstring of a function, class or value; of a class also fields and methods."""
    if not callable(thing):
        return [f"## {name}", f"A {type(thing).__name__}."]
    parts = [f"## {name}", _code(f"{name}{_signature(thing)}"), doc_text(thing)]
    if inspect.isclass(thing):
        for method_name, member in vars(thing).items():
            function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            if method_name.startswith("_") or not inspect.isfunction(function):
                continue
            parts += [f"### {name}.{method_name}", _code(f"{method_name}{_signature(getattr(thing, method_name))}")]
            parts.append(doc_text(function))
        values = [(f"`{key}`", first_line(value)) for key, value in vars(thing).items() if _is_value(key, value)]
        parts += [table(("property", "content"), values)] if values else []
    return parts


def _is_value(name: str, member: Any) -> bool:
    """Whether a class member is a public property, cached or not."""
    return not name.startswith("_") and isinstance(member, property | cached_property)


class _Written(str):
    """An annotation that a signature shows as it was written, without quotes."""

    __repr__ = str.__str__


def _signature(thing: Callable[..., Any]) -> str:
    """The signature, without self, with one parameter a line where it is long."""
    signature = inspect.signature(thing)
    shown = [
        one.replace(annotation=one.annotation if one.annotation is one.empty else _Written(_annotation(one.annotation)))
        for one in signature.parameters.values()
        if one.name != "self"
    ]
    shown = [
        one.replace(default=_Written(one.default.__name__)) if inspect.isroutine(one.default) else one for one in shown
    ]
    returned = f" -> {_annotation(signature.return_annotation)}" if not inspect.isclass(thing) else ""
    text = str(signature.replace(parameters=shown, return_annotation=signature.empty))
    if len(text + returned) < 90:
        return text + returned
    lines = [str(inspect.Signature([one]))[1:-1] for one in shown]
    first_named = next((i for i, one in enumerate(shown) if one.kind is one.KEYWORD_ONLY), None)
    lines = [line.removeprefix("*, ") for line in lines]
    if first_named is not None and not any(one.kind is one.VAR_POSITIONAL for one in shown):
        lines.insert(first_named, "*")
    return "(\n" + "".join(f"    {line},\n" for line in lines) + ")" + returned


def _annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def doc_text(thing: Any) -> str:
    """The docstring as Markdown: `Raises:` begins a list, examples and indented paragraphs are code."""
    parts: list[str] = []
    for paragraph in (inspect.getdoc(thing) or "").split("\n\n"):
        head, _, body = paragraph.partition("\n")
        if re.fullmatch(r"Examples?:", head) or paragraph.startswith(("    ", ">>> ")):
            parts.append(_code(textwrap.dedent(body if head.startswith("Example") else paragraph)))
        elif re.fullmatch(r"[A-Z]\w+:", head):
            entries = re.sub(r"\n\s{5,}", " ", "\n" + body)
            parts.append(f"**{head}**\n" + re.sub(r"\n\s*", r"\n- ", entries))
        else:
            parts.append(paragraph)
    return "\n\n".join(parts)


def _code(text: str) -> str:
    return f"```python\n{text}\n```"


def first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").splitlines()[0]
