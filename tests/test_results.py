"""Committed results: the README repeats them to the digit, they carry intervals and name no machine's folders."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = sorted((REPOSITORY / "results").glob("*.json"))


def test_readme_repeats_the_results() -> None:
    spec = importlib.util.spec_from_file_location("generate", REPOSITORY / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert generate.readme_with_results(readme) == readme, "run python docs/generate.py"


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_result_names_no_folder_of_a_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not [word for word in ("/home/", "/root/", "/work/", "/tmp/", "/Users/", "C:\\") if word in text]


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_result_of_a_run_has_intervals_and_counts(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    if "metrics" not in result:
        pytest.skip("a benchmark, not a run")
    assert result["track"]
    assert not [c for c in result["lentigo"]["commits"] if c.endswith("+")], "made by uncommitted code"
    for judgement in result["metrics"].values():
        assert judgement["n_images"] > 0
        assert sum(map(sum, judgement["confusion"])) == judgement["n_images"]
        for estimate in judgement["metrics"].values():
            if estimate["ci_low"] is not None:
                assert estimate["ci_low"] <= estimate["value"] <= estimate["ci_high"]
            assert estimate["n"] > 0
