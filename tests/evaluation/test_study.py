"""Studies: the file's checks, the order, and running one to its end through kills, edits and lost folders."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tomli_w

from lentigo.core.config import Config
from lentigo.core.errors import CheckpointError, ConfigError, DataError, Stopped
from lentigo.core.predictions import Predictions
from lentigo.core.recipes import load_recipe, merge_recipe
from lentigo.core.run_dir import RunDir
from lentigo.data.catalog import Catalog
from lentigo.evaluation.run_evaluation import evaluate_run
from lentigo.evaluation.run_metrics import read_metrics
from lentigo.evaluation.study import GridRow, Study, Teacher, load_studies, load_study, parse_study
from lentigo.evaluation.study_plan import Folders, plan_study, resolve, settings_digest
from lentigo.evaluation.study_run import Steps, StudyRunner, _without_folders
from lentigo.models.checkpoint import load_checkpoint, load_tensors, save_checkpoint
from lentigo.models.network import ARCHITECTURES
from lentigo.models.weights import WeightsReport
from lentigo.training.devices import Devices
from lentigo.training.loop import Outcome

Training = tuple[RunDir, Outcome]
HARDNESS = Path("mining") / "out-of-fold-1234" / "hardness.csv"
ROUND = '[mining]\nmethod = "report"\nconfidence_threshold = 1.0\n\n[training]\nepochs = 1\n'
JUDGE = functools.partial(evaluate_run, resamples=100)


@pytest.fixture(scope="module")
def tiny() -> Iterator[ModuleType]:
    """tests/training/tiny.py, its network known as `tiny`."""
    path = Path(__file__).parents[1] / "training" / "tiny.py"
    specification = importlib.util.spec_from_file_location("lentigo_tests_tiny_study", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "tiny", module.TINY)
        yield module


@pytest.fixture(scope="module")
def catalog(tiny_catalog: Catalog) -> Catalog:
    """The tiny drawings, three of the judged ones moved to test."""
    judged = [row.image_id for row in tiny_catalog if row.split == "val"][:3]
    rows = tuple(replace(row, split="test") if row.image_id in judged else row for row in tiny_catalog)
    return replace(tiny_catalog, rows=rows)


@pytest.fixture(scope="module")
def recipe(tiny: ModuleType) -> str:
    """A recipe of one epoch as TOML."""
    plain = {"mixup_alpha": 0.0, "cutmix_alpha": 0.0, "ema_decay": 0.0}
    config = tiny.make_config(training={"epochs": 1}, optimizer={"head_only_epochs": 0}, regularization=plain)
    return str(config.to_toml())


@pytest.fixture(scope="module")
def template(tiny: ModuleType, catalog: Catalog, recipe: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, judged on val and test; fakes copy it."""
    folder = tmp_path_factory.mktemp("template")
    (folder / "tiny.toml").write_text(recipe)
    run, _ = tiny.start(load_recipe(str(folder / "tiny.toml")), catalog, folder)
    JUDGE(run, "val")
    JUDGE(run, "test")
    return Path(run.path)


@dataclass
class Fakes:
    """Trainings that take no time: copies of the template. `stop` and `fail` name runs that do not finish."""

    template: Path
    calls: list[str] = field(default_factory=list)
    mined: dict[str, dict[str, Any]] = field(default_factory=dict)
    stop: set[str] = field(default_factory=set)
    fail: dict[str, BaseException] = field(default_factory=dict)
    stop_folds: set[str] = field(default_factory=set)
    clock_s: float = 0.0

    def steps(self) -> Steps:
        """These as a study's steps."""
        return Steps(self.start, self.resume, self.mine, self.judge, lambda: self.clock_s)

    def _finish(self, verb: str, run: RunDir) -> Training:
        self.calls.append(f"{verb} {run.path.name}")
        self.clock_s += 60
        if run.path.name in self.fail:
            raise self.fail.pop(run.path.name)
        finished = "" if run.path.name in self.stop else "done"
        self.stop.discard(run.path.name)
        status = json.loads((self.template / "status.json").read_text())
        run.write_status(
            "done" if finished else "interrupted", **{k: status[k] for k in status if k not in ("state", "pid")}
        )
        return run, Outcome(finished, 0, 0.5, 1.0, WeightsReport("none"))

    def _copy(self, run: RunDir, config: Config) -> None:
        shutil.copytree(self.template, run.path)
        run.config.write_text(config.to_toml())
        run.looks.unlink()
        run.metrics.unlink()

    def start(self, config: Config, catalog: Catalog, *, root: Path, name: str, **rest: Any) -> Training:
        """As `start_run`; a failing one leaves no folder behind."""
        run = RunDir(root / name)
        if name not in self.fail:
            self._copy(run, config)
        return self._finish("start", run)

    def resume(self, path: Path, **rest: Any) -> Training:
        """As `resume_run`."""
        return self._finish("resume", RunDir.open(path))

    def mine(self, parent: RunDir, recipe: str, *, overrides: list[str], root: Path, name: str, **how: Any) -> Training:
        """As `mine_run`: needs the parent's weights, leaves the hardness in the parent's folder."""
        assert parent.best.is_file()
        if name in self.stop_folds:
            self.stop_folds.discard(name)
            raise Stopped("stopped in an out-of-fold training; it is saved", "Run the same command again.")
        self.mined[name] = {"parent": parent.path.name, "control": how["control"], "hardness": how["hardness"]}
        (parent.path / HARDNESS).parent.mkdir(parents=True, exist_ok=True)
        (parent.path / HARDNESS).write_text("image_id,hardness\n")
        self._copy(RunDir(root / name), merge_recipe(load_recipe(str(parent.config)), recipe, overrides))
        return self._finish("mine", RunDir(root / name))

    def judge(self, run: RunDir, split: str, **rest: Any) -> Any:
        """As `evaluate_run`: counts a look at test."""
        self.calls.append(f"judge {run.path.name} {split}")
        if split == "test":
            run.add_look()
        found = read_metrics(RunDir(self.template))[split]
        run.metrics.write_text(json.dumps(read_metrics(run) | {split: found}))


@dataclass
class Workshop:
    """A folder with a study, its recipe, runs and results, and fakes for the trainings."""

    folder: Path
    catalog: Catalog
    fakes: Fakes

    @property
    def folders(self) -> Folders:
        """Where runs and results lie."""
        return Folders(self.folder / "runs", self.folder / "results")

    def study(self, *rows: dict[str, Any], **changes: Any) -> Study:
        """A study of these rows, read from its file."""
        filled = [{"recipe": "round.toml" if "mine" in row else "tiny.toml", **row} for row in rows]
        values = {"name": "s", "title": "A study", "track": "tiny", "rows": filled, **changes}
        (self.folder / "s.toml").write_text(tomli_w.dumps(values))
        return load_study(self.folder / "s.toml")

    def run(self, study: Study, steps: Steps | None = None, catalog: Catalog | None = None, **how: Any) -> Any:
        """Run it."""
        where, said = Devices("cpu"), self.said.append
        runner = StudyRunner(
            study, catalog or self.catalog, self.folders, where, said, steps=steps or self.fakes.steps()
        )
        return runner.run(**how)

    def plan(self, study: Study, *only: str) -> dict[str, str]:
        """The state of every training."""
        return {p.item.stem: p.state for p in plan_study(study, self.catalog, self.folders, only)}

    def result(self, stem: str) -> Any:
        """The content of a result."""
        return json.loads((self.folders.results / f"{stem}.json").read_text())

    def __post_init__(self) -> None:
        self.said: list[Any] = []


@pytest.fixture
def shop(tmp_path: Path, catalog: Catalog, template: Path, recipe: str) -> Workshop:
    """An empty workshop."""
    (tmp_path / "tiny.toml").write_text(recipe)
    (tmp_path / "round.toml").write_text(ROUND)
    return Workshop(tmp_path, catalog, Fakes(template))


# --- The file -----------------------------------------------------------------------------------------------


def values(*rows: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A study's values."""
    filled = [{"recipe": "quick", **row} for row in rows]
    return {"name": "s", "title": "A study", "track": "tiny", "rows": filled, **changes}


def test_every_seed_may_continue_one_parent() -> None:
    arm = {"id": "b", "mine": "a", "parent_seed": 1, "seeds": [0, 5], "hardness_of_seed": 1}
    study = parse_study(values({"id": "a", "seeds": [1]}, arm), "here")
    assert [study.parent(study.item("b", seed)) for seed in (0, 5)] == [study.item("a", 1)] * 2
    assert study.hardness_source(study.item("b", 0)) is None, "the parent measures its own"
    assert [item.stem for item in study.items(["b"])] == ["s-a-s1", "s-b-s0", "s-b-s5"]


def test_defaults() -> None:
    study = parse_study(values({"id": "a"}), "here")
    assert study.splits == ("val",)
    assert study.rows[0].title == "a"
    assert [item.stem for item in study.items()] == ["s-a-s0"]


A, B = {"id": "a", "seeds": [0, 1]}, {"id": "b", "seeds": [0, 1]}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (values(A, A), "the id a is given twice"),
        (values(A, {**B, "mine": "aa"}), "b.mine: no row aa (did you mean a?)"),
        (values(A, {**B, "mine": "a", "seeds": [0, 7]}), "b.mine: the row a has no seed 7 (it has 0, 1)"),
        (values(A, {**B, "mine": "a", "parent_seed": 3}), "b.mine: the row a has no seed 3"),
        (values({**A, "parent_seed": 0}), "a.parent_seed: needs mine = ROW"),
        (values(A, {**B, "mine": "a", "hardness_of_seed": 3}), "b.hardness_of_seed: the row a has no seed 3"),
        (values(A, {**B, "teachers": [{"row": "c", "seed": 0}]}), "b.teachers: no row c"),
        (values({**A, "mine": "b"}, {**B, "mine": "a"}), "rows need each other: a -> b -> a"),
        (values({**A, "teachers": [{"row": "a", "seed": 0}]}), "rows need each other: a -> a"),
        (values(A, {**B, "start": {"row": "c", "seed": 0}}), "b.start: no row c"),
        (values({**A, "start": {"row": "a", "seed": 0}}), "rows need each other: a -> a"),
        (values(A, {**B, "start": {"row": "a", "seed": 0}, "weights": "none"}), "come from weights already"),
        (values({**A, "control": "random"}), "a.control: random needs mine = ROW"),
        (
            values(A, {**B, "mine": "a", "weights": "none"}),
            "b.weights: a mined row begins with the weights of the row a",
        ),
        (values({**A, "seeds": [1, 1]}), "a.seeds: 1 is given twice"),
        (values({**A, "seeds": []}), "rows[0].seeds"),
        (values({**A, "set": ["training.seed=4"]}), "a.set: training.seed is not set here: write seeds"),
        (values({**A, "set": ["epochs"]}), "a.set: expected section.key=value, found 'epochs'"),
        (values({**A, "labels": "x"}), "rows[0].labels: no such key (did you mean label?)"),
        (values({**A, "overrides": []}), "rows[0].overrides: no such key"),
        (values(A, title_="x"), "title_: no such key (did you mean title?)"),
        (values({"id": "A b"}), "rows[0].id: expected lower-case letters, digits and single hyphens, found 'A b'"),
        (values(A, splits=["train"]), "splits[0]"),
        ({"name": "s", "title": "t", "rows": [{"id": "a", "recipe": "quick"}]}, "track: is missing"),
    ],
)
def test_wrong_studies(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_study(wrong, "here.toml")
    assert said in error.value.message
    assert "here.toml: 1 wrong settings" in error.value.message


def test_all_problems_at_once() -> None:
    wrong = values({**A, "set": ["training.seed=4"]}, {**B, "mine": "c"}, {**A, "control": "random"})
    with pytest.raises(ConfigError) as error:
        parse_study(wrong, "here")
    assert "4 wrong settings" in error.value.message


def test_order_and_selection() -> None:
    mined = {"id": "m", "seeds": [2, 0, 1], "mine": "a", "hardness_of_seed": 0}
    taught = {"id": "t", "teachers": [{"row": "m", "seed": 1}]}
    study = parse_study(values(taught, mined, {**A, "seeds": [0, 1, 2]}, B), "here")
    order = [item.stem.removeprefix("s-") for item in study.items()]
    assert sorted(order) == sorted(set(order))
    assert len(order) == 9
    for item in study.items():
        for needed in study.needs(item):
            assert order.index(needed.stem.removeprefix("s-")) < order.index(item.stem.removeprefix("s-"))
    assert order.index("m-s0") < min(order.index("m-s1"), order.index("m-s2")), "it measures the shared hardness"
    assert order.index("b-s0") < order.index("b-s1")
    assert [item.stem for item in study.items(["b"])] == ["s-b-s0", "s-b-s1"]
    assert {item.row.id for item in study.items(["m"])} == {"m", "a"}
    with pytest.raises(ConfigError, match=r"s has no row bb \(did you mean b\?\)"):
        study.items(["bb"])


def test_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the study"):
        load_study(tmp_path / "none.toml")
    (tmp_path / "a.toml").write_text("name = ")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load_study(tmp_path / "a.toml")
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text(tomli_w.dumps(values(A)))
    with pytest.raises(ConfigError, match="two studies are called s"):
        load_studies(tmp_path)


def test_shipped_studies_parse(repository: Path) -> None:
    studies = load_studies(repository / "studies")
    assert {"report-gray", "report-rgb", "strong-gray", "strong-rgb", "mining", "ablation", "full"} <= {
        study.name for study in studies.values()
    }
    assert all(path.stem == study.name and study.text for path, study in studies.items())
    stems = [item.stem for study in studies.values() for item in study.items()]
    assert len(stems) == len(set(stems)), "two studies would write the same result file"


def test_shipped_studies_resolve(repository: Path, tmp_path: Path) -> None:
    """Their recipes exist, their changes name keys, and mined rows fit their parents."""
    folders = Folders(tmp_path, tmp_path)
    for study in load_studies(repository / "studies").values():
        for item in study.items():
            assert resolve(study, item, folders).training.seed == item.seed


def test_every_key_is_documented(repository: Path) -> None:
    page = (repository / "docs" / "how-to" / "studies.md").read_text(encoding="utf-8")
    for model in (Study, GridRow, Teacher):
        for name, facts in model.model_fields.items():
            key = facts.alias or name
            assert any(text in page for text in (f"{key} = ", f"`{key}`", f"[[{key}]]")), key


# --- The digest ---------------------------------------------------------------------------------------------


def test_digest_covers_what_decides_a_result() -> None:
    item = parse_study(values(A), "here").items()[0]

    def digest(*overrides: str, needed: tuple[str, ...] = (), row: GridRow = item.row) -> str:
        return settings_digest(load_recipe("quick", overrides), replace(item, row=row), list(needed))

    first = digest("model.weights=/one/w.safetensors")
    same = [
        digest("model.weights=/other/w.safetensors"),
        digest("model.weights=/one/w.safetensors", "data.cache=disk", "training.checkpoint_min=1"),
        digest("model.weights=/one/w.safetensors", "training.time_limit_min=9"),
    ]
    others = [
        digest("model.weights=none"),
        digest("model.weights=/one/w.safetensors", "training.epochs=3"),
        digest("model.weights=/one/w.safetensors", "training.seed=1"),
        digest("model.weights=/one/w.safetensors", needed=("x",)),
        digest("model.weights=/one/w.safetensors", row=item.row.model_copy(update={"control": "random"})),
    ]
    assert set(same) == {first}
    assert len({first, *others}) == 1 + len(others)


# --- Running ------------------------------------------------------------------------------------------------


def test_real_trainings(shop: Workshop) -> None:
    """Training, mining and judging for real; a second call finds nothing to do."""
    study = shop.study(
        {"id": "a"},
        {"id": "b", "label": "Faster", "set": ["optimizer.learning_rate=0.02"]},
        {"id": "m", "mine": "a", "control": "random"},
    )
    assert shop.plan(study) == {"s-a-s0": "to run", "s-b-s0": "to run", "s-m-s0": "waits for"}
    outcome = shop.run(study, Steps(judge=JUDGE))
    assert [path.name for path in outcome.written] == ["s-a-s0.json", "s-b-s0.json", "s-m-s0.json"]
    mined = shop.result("s-m-s0")
    assert (mined["study"]["mined"], mined["study"]["control"]) == ("s-a-s0", "random")
    assert (mined["settings"]["mining"]["control"], mined["settings"]["mining"]["parent"]) == ("random", "s-a-s0")
    assert str(shop.folder) not in json.dumps(mined)
    assert set(shop.plan(study).values()) == {"done"}
    result = shop.result("s-b-s0")
    digest = result["study"].pop("digest")
    assert result["study"] == {"name": "s", "row": "b", "label": "Faster", "seed": 0}
    assert len(digest) == 64
    assert result["recipe_changes"] == ["optimizer.learning_rate"]
    assert set(result["metrics"]) == {"val"}
    assert str(shop.folder) not in json.dumps(result)
    kept = Predictions.from_csv(shop.folders.results / "predictions" / "s-b-s0.val.csv")
    assert len(kept) == result["metrics"]["val"]["n_images"] == 6
    assert shop.run(study).written == []
    assert shop.fakes.calls == []


def test_killed_between_rows(shop: Workshop) -> None:
    study = shop.study({"id": "a", "seeds": [0, 1]}, {"id": "b"})
    shop.fakes.fail["s-b-s0"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        shop.run(study)
    assert shop.plan(study) == {"s-a-s0": "done", "s-b-s0": "to run", "s-a-s1": "to run"}
    shop.fakes.calls.clear()
    shop.run(study)
    assert shop.fakes.calls == ["start s-b-s0", "judge s-b-s0 val", "start s-a-s1", "judge s-a-s1 val"]


def test_interrupted_training_resumes(shop: Workshop) -> None:
    study = shop.study({"id": "a"}, {"id": "b"})
    shop.fakes.stop.add("s-a-s0")
    outcome = shop.run(study)
    assert (outcome.interrupted, outcome.written) == ("s-a-s0", [])
    assert shop.plan(study)["s-a-s0"] == "resumes"
    assert len(shop.run(study).written) == 2
    assert shop.fakes.calls[:3] == ["start s-a-s0", "resume s-a-s0", "judge s-a-s0 val"]


def test_killed_while_judging(shop: Workshop) -> None:
    study = shop.study({"id": "a"})

    def killed(run: RunDir, split: str, **rest: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shop.run(study, replace(shop.fakes.steps(), judge=killed))
    assert shop.plan(study) == {"s-a-s0": "to judge"}
    shop.run(study)
    assert shop.fakes.calls == ["start s-a-s0", "judge s-a-s0 val"]


@pytest.mark.parametrize("keep_run", [True, False])
def test_other_settings_are_refused(shop: Workshop, keep_run: bool) -> None:
    shop.run(shop.study({"id": "a"}, {"id": "b"}))
    before = {path: path.read_bytes() for path in shop.folders.results.rglob("*.*")}
    if not keep_run:
        shutil.rmtree(shop.folders.runs)
    changed = shop.study({"id": "a", "set": ["training.epochs=2"]}, {"id": "b", "set": ["training.epochs=3"]})
    with pytest.raises(ConfigError) as error:
        shop.run(changed)
    assert "2 trainings differ" in error.value.message
    assert f"{shop.folders.results / 's-a-s0.json'} was made with other settings" in error.value.message
    assert "new ids" in error.value.remedy
    assert {path: path.read_bytes() for path in shop.folders.results.rglob("*.*")} == before


def test_run_of_other_settings_is_refused(shop: Workshop) -> None:
    shop.fakes.stop.add("s-a-s0")
    shop.run(shop.study({"id": "a"}))
    with pytest.raises(ConfigError, match="s-a-s0 was started with other settings"):
        shop.run(shop.study({"id": "a", "set": ["training.epochs=2"]}))
    shop.folders.digest(shop.study({"id": "a"}).items()[0]).unlink()
    assert shop.plan(shop.study({"id": "a"})) == {"s-a-s0": "resumes"}, "its own settings stand in for the digest"


def test_other_rows_of_data_are_refused(shop: Workshop, catalog: Catalog) -> None:
    study = shop.study({"id": "a"})
    shop.run(study)
    fewer = replace(catalog, rows=catalog.rows[1:])
    with pytest.raises(ConfigError, match=r"s-a-s0\.json was made on other rows of data"):
        shop.run(study, catalog=fewer)
    shutil.rmtree(shop.folders.results)
    with pytest.raises(ConfigError, match="s-a-s0 was started on other rows of data"):
        shop.run(study, catalog=fewer)


def test_result_of_another_study_is_refused(shop: Workshop) -> None:
    study = shop.study({"id": "a"})
    shop.folders.results.mkdir()
    (shop.folders.results / "s-a-s0.json").write_text('{"metrics": {}}')
    with pytest.raises(ConfigError, match="belongs to no row or another one"):
        shop.run(study)
    (shop.folders.results / "s-a-s0.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        shop.run(study)


def test_test_is_looked_at_once(shop: Workshop) -> None:
    study = shop.study({"id": "a"}, splits=["val", "test"])
    shop.run(study)
    assert shop.result("s-a-s0")["test_looks"] == 1
    (shop.folders.results / "s-a-s0.json").unlink()
    shop.run(study)
    assert shop.fakes.calls.count("judge s-a-s0 test") == 1
    assert shop.result("s-a-s0")["test_looks"] == 1
    assert set(shop.result("s-a-s0")["metrics"]) == {"val", "test"}


def test_val_is_judged_again_for_other_weights_and_not_for_a_newer_file(shop: Workshop) -> None:
    study = shop.study({"id": "a"})
    shop.run(study)
    run, result = shop.folders.run(study.item("a", 0)), shop.folders.results / "s-a-s0.json"
    os.utime(run.best, (2e9, 2e9))
    result.unlink()
    shop.run(study)
    assert shop.fakes.calls.count("judge s-a-s0 val") == 1
    weights, spec = load_tensors(run.best)[0], load_checkpoint(run.best)[1]
    save_checkpoint(run.best, {name: value + 1 for name, value in weights.items()}, spec)
    os.utime(run.best, (1e9, 1e9))
    result.unlink()
    shop.run(study)
    assert shop.fakes.calls.count("judge s-a-s0 val") == 2


def test_a_look_that_was_cut_off_is_finished_without_another(shop: Workshop) -> None:
    study = shop.study({"id": "a"}, splits=["val", "test"])
    shop.run(study)
    run = shop.folders.run(study.item("a", 0))
    before = json.loads(run.metrics.read_text())
    run.metrics.write_text(json.dumps({"val": before["val"]}))
    (shop.folders.results / "s-a-s0.json").unlink()
    shop.run(study)
    assert shop.fakes.calls.count("judge s-a-s0 test") == 1
    assert len(run.read_looks()) == 1
    assert (
        shop.result("s-a-s0")["metrics"]["test"]["metrics"]["accuracy"]["value"]
        == (before["test"]["metrics"]["accuracy"]["value"])
    )


def test_test_asked_for_later(shop: Workshop) -> None:
    shop.run(shop.study({"id": "a"}))
    later = shop.study({"id": "a"}, splits=["val", "test"])
    assert shop.plan(later) == {"s-a-s0": "to judge"}
    shop.run(later)
    assert shop.fakes.calls == ["start s-a-s0", "judge s-a-s0 val", "judge s-a-s0 test"]
    for result in shop.folders.results.glob("*.json"):
        content = json.loads(result.read_text())
        del content["metrics"]["test"]
        result.write_text(json.dumps(content))
    shutil.rmtree(shop.folders.runs)
    with pytest.raises(ConfigError, match="has no test, and its run folder"):
        shop.run(later)


MINED = {"id": "m", "mine": "a", "control": "shuffled", "seeds": [0, 1], "hardness_of_seed": 0}


def test_mined_rows(shop: Workshop) -> None:
    study = shop.study({"id": "a", "seeds": [0, 1]}, MINED)
    assert shop.plan(study)["s-m-s0"] == "waits for"
    shop.run(study)
    hardness = shop.folders.runs / "s-a-s0" / HARDNESS
    assert shop.fakes.mined == {
        "s-m-s0": {"parent": "s-a-s0", "control": "shuffled", "hardness": None},
        "s-m-s1": {"parent": "s-a-s1", "control": "shuffled", "hardness": hardness},
    }
    about = shop.result("s-m-s1")["study"]
    assert (about["mined"], about["control"]) == ("s-a-s1", "shuffled")


def test_mining_stopped_in_its_folds(shop: Workshop) -> None:
    study = shop.study({"id": "a"}, {"id": "m", "mine": "a"})
    shop.fakes.stop_folds.add("s-m-s0")
    assert shop.run(study).interrupted == "s-m-s0"
    assert shop.plan(study)["s-m-s0"] == "to run"
    assert [path.stem for path in shop.run(study).written] == ["s-m-s0"]


def test_digest_of_a_mined_row_covers_what_its_recipe_states(shop: Workshop) -> None:
    """A stated default differs from a key that stays as in the parent."""

    def digest(*changes: str) -> str:
        study = shop.study({"id": "a", "set": ["training.epochs=3"]}, {"id": "m", "mine": "a", "set": list(changes)})
        return plan_study(study, shop.catalog, shop.folders)[1].digest

    (shop.folder / "round.toml").write_text('[mining]\nmethod = "report"\n')
    assert digest() == digest("training.epochs=3") != digest("training.epochs=8")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": "m", "mine": "a", "recipe": "tiny.toml"}, "tiny.toml is no mining recipe"),
        ({"id": "m", "recipe": "round.toml"}, "round.toml mines a finished run"),
        ({"id": "m", "set": ["distillation.weight=0.5"]}, "distillation.weight is set, but there are no teachers"),
        ({"id": "m", "mine": "a", "set": ["preprocess.color_mode=gray"]}, "changes the preprocessing"),
    ],
)
def test_recipes_fit_their_rows(shop: Workshop, row: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match="row m: ") as error:
        shop.plan(shop.study({"id": "a"}, row))
    assert said in error.value.message


def test_teachers(shop: Workshop) -> None:
    """Their weights reach the training; the result names them without folders, the digest by what they are."""
    taught = {"id": "t", "teachers": [{"row": "a", "seed": 1}], "set": ["distillation.weight=0.5"]}
    study = shop.study({"id": "a", "seeds": [0, 1]}, taught)
    shop.run(study)
    config = load_recipe(str(shop.folders.runs / "s-t-s0" / "config.toml"))
    assert config.distillation.teachers == (str(shop.folders.runs / "s-a-s1" / "checkpoints" / "best.safetensors"),)
    result = shop.result("s-t-s0")
    assert result["settings"]["distillation"]["teachers"] == ["s-a-s1/best.safetensors"]
    assert result["study"]["teachers"] == ["s-a-s1"]
    moved = replace(shop.folders, runs=shop.folder / "elsewhere")
    assert {plan.state for plan in plan_study(study, shop.catalog, moved)} == {"done"}


def test_start(shop: Workshop) -> None:
    """A row goes on from a finished run's network, head included; the result names that run."""
    going_on = {"id": "t", "start": {"row": "a", "seed": 0}, "set": ["training.epochs=1"]}
    study = shop.study({"id": "a"}, going_on)
    shop.run(study)
    config = load_recipe(str(shop.folders.runs / "s-t-s0" / "config.toml"))
    assert config.model.weights == str(shop.folders.runs / "s-a-s0" / "checkpoints" / "best.safetensors")
    result = shop.result("s-t-s0")
    assert result["study"]["start"] == "s-a-s0"
    assert str(shop.folder) not in json.dumps(result)
    assert "new head" not in (shop.folders.runs / "s-t-s0" / "log.txt").read_text(encoding="utf-8")
    moved = replace(shop.folders, runs=shop.folder / "elsewhere")
    assert {plan.state for plan in plan_study(study, shop.catalog, moved)} == {"done"}
    changed = shop.study({"id": "a", "set": ["training.batch_size=3"]}, going_on)
    with pytest.raises(ConfigError, match=r"s-t-s0\.json was made with other settings"):
        shop.plan(changed)


def test_changed_parent_changes_its_children(shop: Workshop) -> None:
    shop.run(shop.study({"id": "a", "seeds": [0, 1]}, MINED))
    for path in [*shop.folders.results.glob("s-a-*.json")]:
        path.unlink()
    for path in shop.folders.runs.glob("s-a-*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ConfigError, match=r"s-m-s0\.json was made with other settings"):
        shop.run(shop.study({"id": "a", "seeds": [0, 1], "set": ["training.epochs=2"]}, MINED))


def test_missing_hardness(shop: Workshop) -> None:
    study = shop.study({"id": "a", "seeds": [0, 1]}, {**MINED, "seeds": [1]})
    with pytest.raises(DataError, match="row m, seed 1: hardness_of_seed = 0"):
        shop.run(study)


def test_lost_parent_is_trained_again(shop: Workshop) -> None:
    shop.run(shop.study({"id": "a"}))
    shutil.rmtree(shop.folders.runs)
    before = (shop.folders.results / "s-a-s0.json").read_bytes()
    study = shop.study({"id": "a"}, {"id": "m", "mine": "a"})
    (plan,) = [p for p in plan_study(study, shop.catalog, shop.folders) if p.item.row.id == "m"]
    assert (plan.state, plan.detail) == ("to run", "trains s-a-s0 again first: the run folder is gone")
    shop.fakes.calls.clear()
    shop.run(study)
    assert shop.fakes.calls == ["start s-a-s0", "mine s-m-s0", "judge s-m-s0 val"]
    assert (shop.folders.results / "s-a-s0.json").read_bytes() == before
    assert any("training s-a-s0 again" in getattr(event, "text", "") for event in shop.said)


def test_selection_brings_what_it_needs(shop: Workshop) -> None:
    study = shop.study({"id": "a"}, {"id": "b"}, {"id": "m", "mine": "a"})
    outcome = shop.run(study, only=["m"])
    assert [path.stem for path in outcome.written] == ["s-a-s0", "s-m-s0"]


def test_failed_row_is_named(shop: Workshop) -> None:
    study = shop.study({"id": "a"}, {"id": "b"})
    shop.fakes.fail["s-b-s0"] = DataError("the training diverged", "Lower the rate.")
    with pytest.raises(DataError) as error:
        shop.run(study)
    assert error.value.message == "row b, seed 0: the training diverged"
    assert shop.plan(study)["s-a-s0"] == "done"


def test_time_limit_begins_nothing_more(shop: Workshop) -> None:
    study = shop.study({"id": "a"}, {"id": "b"}, {"id": "c"})
    outcome = shop.run(study, time_limit_min=2)
    assert [path.stem for path in outcome.written] == ["s-a-s0", "s-b-s0"]
    assert outcome.left == ["s-c-s0"]


def test_missing_weights_are_known_before_anything_runs(shop: Workshop) -> None:
    study = shop.study({"id": "a"}, {"id": "b", "weights": "v2.safetensors"}, {"id": "c", "weights": "v3.safetensors"})
    with pytest.raises(CheckpointError, match=r"2 files of starting weights are missing: v2\.safetensors, v3"):
        shop.run(study)
    assert shop.fakes.calls == []


def test_wrong_recipe_is_known_before_anything_runs(shop: Workshop) -> None:
    """Every row that cannot be resolved is named, once; rows that build on it are not."""
    wrong = {"id": "b", "seeds": [0, 1], "recipe": "strongest"}
    study = shop.study({"id": "a", "set": ["training.epoch=1"]}, wrong, {"id": "m", "mine": "b"}, {"id": "c"})
    with pytest.raises(ConfigError) as error:
        shop.run(study)
    assert error.value.message.count("row ") == 2
    assert "row a: --set training.epoch: no such key" in error.value.message
    assert "row b: no recipe 'strongest'" in error.value.message
    assert shop.fakes.calls == []


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ("/home/me/runs/s-a-s0/checkpoints/best.safetensors", "s-a-s0/best.safetensors"),
        ("runs/s-a-s0/checkpoints/best.safetensors", "s-a-s0/best.safetensors"),
        ("/home/me/runs/s-a-s0", "s-a-s0"),
        ("timm:hub/name", "timm:hub/name"),
        (["/x/y", 3], ["y", 3]),
    ],
)
def test_results_name_no_folders(found: object, kept: object) -> None:
    assert _without_folders({"key": found}) == {"key": kept}
