"""The notebook runs from top to bottom, and is kept without what one machine's run left in it."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "first_steps.ipynb"


def read() -> nbformat.NotebookNode:
    """The notebook, checked against the format."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    return notebook


def test_notebook_has_no_outputs() -> None:
    cells = [cell for cell in read().cells if cell.cell_type == "code"]
    assert len(cells) > 5
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


def test_notebook_uses_public_names_alone() -> None:
    """What a reader copies from it stays."""
    code = "\n".join(cell.source for cell in read().cells if cell.cell_type == "code")
    assert "import lentigo\n" in code
    assert "lentigo." in code
    assert "from lentigo" not in code
    assert "import lentigo." not in code


@pytest.mark.slow
def test_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = read()
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    printed = "".join(output.get("text", "") for output in outputs)
    assert "epoch 6/6" in printed
    assert "balanced accuracy" in printed
    assert "malignant risk" in printed
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert (kinds.count("image/svg+xml"), kinds.count("image/png"), kinds.count("image/jpeg")) == (2, 2, 1)
    assert not any(output.get("name") == "stderr" for output in outputs), "no warning"
