"""The Python on the pages: it compiles, all that it imports is there, and what needs no model runs."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lentigo.core.predictions import Predictions
from lentigo.core.taxonomy import NUM_CLASSES

REPOSITORY = Path(__file__).resolve().parents[2]
SIGNATURES = REPOSITORY / "docs" / "reference" / "api.md"


def snippets(page: Path) -> list[str]:
    """The fenced Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


SNIPPETS = [
    pytest.param(page, code, id=f"{page.relative_to(REPOSITORY)}: {number}")
    for page in sorted((REPOSITORY / "docs").rglob("*.md"))
    for number, code in enumerate(snippets(page), 1)
    if page != SIGNATURES
]


def test_snippets_were_found() -> None:
    assert len(SNIPPETS) >= 8


def test_no_python_hides_in_other_blocks() -> None:
    """An indented block with an import would be tested by nothing."""
    for page in (REPOSITORY / "docs").rglob("*.md"):
        hidden = re.findall(r"^ {4}(?:from \S+ )?import .*$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert page == SIGNATURES or not hidden, f"{page.name}: {hidden}"


@pytest.mark.parametrize(("page", "code"), SNIPPETS)
def test_snippet_compiles_and_its_imports_exist(page: Path, code: str) -> None:
    for node in ast.walk(ast.parse(code, str(page))):
        if isinstance(node, ast.Import):
            for name in node.names:
                importlib.import_module(name.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            missing = [name.name for name in node.names if not hasattr(module, name.name)]
            assert not missing, f"{node.module} has no {missing}"


def test_calibration_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    label = draw.integers(NUM_CLASSES, size=280)
    logits = draw.normal(size=(280, NUM_CLASSES)).astype(np.float32)
    logits[np.arange(280), label] += 2
    names = tuple(f"image-{number}" for number in range(280))
    (tmp_path / "RUN" / "predictions").mkdir(parents=True)
    Predictions(names, names, label, logits).to_csv(tmp_path / "RUN" / "predictions" / "val.csv")
    monkeypatch.chdir(tmp_path)
    page = REPOSITORY / "docs" / "explanation" / "calibration.md"
    scope: dict[str, Any] = {"logits": logits[:5]}
    for code in snippets(page):
        exec(compile(code, str(page), "exec"), scope)
    assert scope["test"].probs.shape == (5, NUM_CLASSES)
    assert scope["calibration"].n_lesions == 280
