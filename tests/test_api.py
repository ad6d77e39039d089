"""The public names: light to import, documented, typed, and the whole way by their own examples."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import get_type_hints

import numpy as np
import pytest

import lentigo
from lentigo import api
from lentigo.core.errors import ConfigError, DataError, MissingExtraError
from lentigo.core.predictions import Predictions
from lentigo.core.taxonomy import CLASS_CODES, NUM_CLASSES
from lentigo.data.catalog import Catalog

FUNCTIONS = [name for name in lentigo.__all__ if inspect.isfunction(getattr(lentigo, name))]
THE_WAY = (
    "synth", "read_catalog", "split", "show", "train", "evaluate", "mine", "compare", "export", "load", "predict",
    "resume",
)  # fmt: skip
"""The functions in an order in which each example finds what it wants."""
TRAINING_TIER = ("torch", "torchvision", "lightning_fabric", "pandas", "scipy", "pyarrow", "matplotlib", "sklearn")


def loaded_by(*lines: str) -> set[str]:
    """The modules that a new process has loaded after these lines, without those that Python begins with."""
    program = ["import sys; before = set(sys.modules)", *lines, "print(*(set(sys.modules) - before))"]
    done = subprocess.run([sys.executable, "-c", "\n".join(program)], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def example(name: str) -> str:
    """The code of a function's example."""
    text = inspect.getdoc(getattr(lentigo, name)) or ""
    return textwrap.dedent(text.partition("\n\nExample:\n")[2])


def test_import_loads_nothing() -> None:
    """Of this package and of all that it needs; so it takes as long as an empty module."""
    loaded = loaded_by("import lentigo")
    assert {name for name in loaded if name.startswith("lentigo")} == {"lentigo"}
    assert not loaded & {"numpy", "PIL", "onnxruntime", "pydantic", "typer", "rich", *TRAINING_TIER}


def test_names_need_the_runtime_alone() -> None:
    loaded = loaded_by("import lentigo; [getattr(lentigo, name) for name in lentigo.__all__]")
    assert "lentigo.deploy.classifier" in loaded
    assert not loaded & set(TRAINING_TIER)


def test_predicting_and_comparing_need_the_runtime_alone(tmp_path: Path) -> None:
    """Predicting as far as the error of an empty folder, which comes after all imports."""
    labels, names = np.arange(NUM_CLASSES), tuple(CLASS_CODES)
    for name in "ab":
        Predictions(names, names, labels, np.eye(NUM_CLASSES, dtype=np.float32)).to_csv(tmp_path / f"{name}.csv")
    (tmp_path / "empty").mkdir()
    loaded = loaded_by(
        "import lentigo",
        f"folder = {str(tmp_path)!r}",
        "lentigo.compare({name: f'{folder}/{name}.csv' for name in 'ab'}, resamples=100)",
        "for call in (lentigo.load, lentigo.predict):",
        "    try: call(f'{folder}/empty')",
        "    except lentigo.LentigoError: pass",
    )
    assert {"lentigo.evaluation.compare", "lentigo.deploy.engine"} <= loaded
    assert not loaded & set(TRAINING_TIER)


def test_names_are_shown_and_no_others_are_there() -> None:
    assert set(lentigo.__all__) <= set(dir(lentigo))
    assert len(set(lentigo.__all__)) == len(lentigo.__all__)
    with pytest.raises(AttributeError, match="no attribute 'diagnose'"):
        lentigo.diagnose  # type: ignore[attr-defined]  # noqa: B018


def test_every_function_of_the_api_is_public() -> None:
    written = {name for name, one in vars(api).items() if inspect.isfunction(one) and one.__module__ == api.__name__}
    assert {name for name in written if not name.startswith("_")} == set(FUNCTIONS) == set(THE_WAY)


@pytest.mark.parametrize("name", lentigo.__all__)
def test_name_is_documented(name: str) -> None:
    text = inspect.getdoc(getattr(lentigo, name)) or ""
    assert text.split("\n\n")[0].endswith("."), "begins with one sentence"
    if name in FUNCTIONS:
        assert "\n\nRaises:\n" in text
        assert f"lentigo.{name}(" in example(name) or name == "load"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_type_hints_are_complete(name: str) -> None:
    from lentigo.data.make_split import MadeSplits
    from lentigo.deploy.export import Export
    from lentigo.deploy.exported import VariantName
    from lentigo.evaluation.compare import Comparisons
    from lentigo.evaluation.evaluate import Judgement

    results = (MadeSplits, Export, Comparisons, Judgement)
    known = {one.__name__: one for one in (*results, lentigo.Classifier, lentigo.Prediction, lentigo.Failure, Catalog)}
    function = getattr(lentigo, name)
    hints = get_type_hints(function, localns={**known, "VariantName": VariantName})
    assert set(hints) == {*inspect.signature(function).parameters, "return"}


@pytest.mark.parametrize(
    "value", [4, 0.5, True, [64], (64, 32), "quick", "12", "true", 'a "b" = c', "[x]", Path("a dir/ä.pth")], ids=repr
)
def test_settings_keep_their_values(value: object) -> None:
    """What looks like another kind of value in TOML stays what it is."""
    [override] = api._overrides({"a.b": value})
    key, _, text = override.partition("=")
    expected = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
    assert key == "a.b"
    assert tomllib.loads(f"value = {text.strip()}")["value"] == expected


def test_errors_are_lentigo_errors(tmp_path: Path) -> None:
    """They come at the call, not when the first answer is asked for."""
    for call in (lentigo.predict, lentigo.load, lentigo.evaluate, lentigo.read_catalog, lentigo.resume):
        with pytest.raises(lentigo.LentigoError) as caught:
            call(tmp_path / "nothing")  # type: ignore[operator]
        assert caught.value.remedy
    with pytest.raises(ConfigError, match="expected 1 thread or more; found 0"):
        lentigo.predict(tmp_path, threads=0)
    with pytest.raises(DataError, match="expected one path or more; found none"):
        lentigo.predict([])
    with pytest.raises(ConfigError, match=r"training\.epoch"):
        lentigo.train(tmp_path, "demo", settings={"training.epoch": 3})


def test_missing_packages_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lentigo.doctor.find_spec", lambda name: None if name == "torch" else name)
    for call in (lentigo.train, lentigo.resume, lentigo.evaluate, lentigo.mine, lentigo.export):
        with pytest.raises(MissingExtraError, match="torch"):
            call(tmp_path)
    with pytest.raises(MissingExtraError, match="torch"):
        lentigo.show(tmp_path, tmp_path)


def test_stopped_training_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"lentigo\.resume\("):
        api._finished(lentigo.RunDir(tmp_path), SimpleNamespace(finished=""))


@pytest.mark.slow
def test_examples_are_the_whole_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From drawings to answers, by the examples of the docstrings, one after the other."""
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {"lentigo": lentigo}
    for name in THE_WAY:
        exec(compile(example(name), f"example of {name}", "exec"), space)
    printed = capsys.readouterr().out
    run = space["run"]
    assert isinstance(run, lentigo.RunDir)
    assert run.report.is_file()
    assert "epoch 4/4" in printed
    images = sorted((tmp_path / "drawn" / "images").iterdir())
    assert sum(line.startswith("drawn/images/") for line in printed.splitlines()) == len(images) == 200
    classifier = space["classifier"]
    assert isinstance(classifier, lentigo.Classifier)
    (tmp_path / "text.jpg").write_text("no image")
    answers = list(lentigo.predict([tmp_path / "text.jpg", *images[:3]], run, threads=2))
    assert isinstance(answers[0], lentigo.Failure)
    one_by_one = classifier.predict(images[:3])
    for answer, expected in zip(answers[1:], one_by_one, strict=True):
        assert isinstance(answer, lentigo.Prediction)
        assert answer.probs == pytest.approx(expected.probs, abs=1e-6)


def test_split_refuses_fractions_beside_folds(tmp_path: Path) -> None:
    """Neither is dropped silently, in Python as in the shell."""
    with pytest.raises(lentigo.LentigoError, match="found both"):
        lentigo.split(tmp_path, tmp_path / "split.csv", fractions={"train": 0.5, "val": 0.5}, folds=2)
