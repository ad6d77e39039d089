"""The page that lists the service's operations, from its OpenAPI: plain HTML without scripts and foreign hosts."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from lentigo.deploy.exported import NOTICE

SCHEMA_PATH = "/api/openapi.json"


def docs_html(schema: Mapping[str, Any]) -> str:
    """A whole page; everything taken from the schema is escaped."""
    info = schema["info"]
    operations = "".join(
        _operation(method, path, operation)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])}: operations</title>"
        '<link rel="icon" href="/icon.svg"><link rel="stylesheet" href="/pages.css"></head><body>'
        f'<p class="notice" role="note">{escape(NOTICE)}</p>'
        f"<main><h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f"<p>{escape(info.get('description', ''))}</p>"
        f'<p>For programs: <a href="{SCHEMA_PATH}">openapi.json</a>.</p>{operations}</main></body></html>'
    )


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    parameters = "".join(
        f"<dt><code>{escape(one['name'])}</code> ({escape(one['in'])})</dt>"
        f"<dd>{escape(one.get('description', ''))}</dd>"
        for one in operation.get("parameters", ())
    )
    body = "".join(
        f"<dt><code>{escape(kind)}</code> (body)</dt><dd>{escape(operation['requestBody'].get('description', ''))}</dd>"
        for kind in operation.get("requestBody", {}).get("content", {})
    )
    answers = "".join(
        f"<tr><td>{escape(status)}</td><td>{escape(answer['description'])}</td></tr>"
        for status, answer in sorted(operation["responses"].items())
    )
    inputs = f'<dl class="facts">{parameters}{body}</dl>' if parameters or body else ""
    return (
        f"<section><h2><code>{escape(method.upper())} {escape(path)}</code></h2>"
        f"<p>{escape(operation.get('description') or operation.get('summary', ''))}</p>{inputs}"
        f'<table><thead><tr><th scope="col">status</th><th scope="col">answer</th></tr></thead>'
        f"<tbody>{answers}</tbody></table></section>"
    )
