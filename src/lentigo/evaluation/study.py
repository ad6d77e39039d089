"""A study is a file: recipes x seeds whose results stand in one table. Its format, its checks, its order.

`lentigo.evaluation.study_run` trains and judges its rows, `lentigo.evaluation.results_page` shows them.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from lentigo.core.config import Section
from lentigo.core.errors import ConfigError

Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1)]
JudgedSplit = Literal["val", "test"]
Metric = Literal["accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "malignant_auc", "log_loss"]
Control = Literal["none", "continuation", "random", "shuffled", "hard_only"]

OWN_KEYS = {
    "model.weights": "write weights = ... in the row",
    "training.seed": "write seeds = [...] in the row",
    "training.time_limit_min": "a row stopped by the clock cannot be repeated; set training.epochs",
    "distillation.teachers": "write teachers = [{row = ..., seed = ...}] in the row",
    "mining.control": "write control = ... in the row",
}
"""Keys that a row sets through fields of its own."""


class Teacher(Section):
    """One finished training of the same study, from which a row learns or with whose weights it begins."""

    row: Name = Field(description="id of the row")
    seed: Seed = Field(description="one of its seeds")


class GridRow(Section):
    """One recipe with its changes, trained once per seed."""

    id: Name = Field(description="unique; names run folders and result files")
    label: str = Field("", description="how tables call the row; empty: its id")
    recipe: Annotated[str, Field(min_length=1)] = Field(description="name, or a .toml file beside the study")
    weights: str = Field("", description="imagenet, none, or a file in --weights-dir; empty: as the recipe says")
    start: Teacher | None = Field(None, description="a finished training with whose network, head too, a row begins")
    seeds: Seeds = Field((0,), description="one training each")
    overrides: tuple[str, ...] = Field((), alias="set", description="section.key=value, as --set takes them")
    mine: Name | None = Field(None, description="id of the row whose run of the same seed is mined")
    parent_seed: Seed | None = Field(None, description="mine this seed's run with every seed; empty: the same seed's")
    control: Control = Field("none", description="control arm of a mined row")
    hardness_of_seed: Seed | None = Field(None, description="take the hardness from the parent's run of this seed")
    teachers: tuple[Teacher, ...] = Field((), description="finished trainings that a row learns from")
    readme: bool = Field(False, description="also show the row in README.md")

    @property
    def title(self) -> str:
        """What tables call the row."""
        return self.label or self.id


@dataclass(frozen=True, slots=True)
class Item:
    """One training of a study: a row with a seed. `stem` names its run folder and its result files."""

    row: GridRow
    seed: int
    stem: str


class Study(Section):
    """A grid of recipes x seeds on one track, shown as one table."""

    name: Name = Field(description="begins the names of runs and results")
    title: Annotated[str, Field(min_length=1)] = Field(description="heading of its section")
    text: str = Field("", description="question, what is compared, what was reduced")
    track: Annotated[str, Field(min_length=1)] = Field(description="name of the data, such as rgb-3k")
    splits: Annotated[tuple[JudgedSplit, ...], Field(min_length=1)] = Field(("val",), description="val, test or both")
    per_class: bool = Field(False, description="also show the recall of each class")
    baseline: Name | None = Field(None, description="id of the row that the others are tested against, paired")
    metric: Metric = Field("balanced_accuracy", description="decides these tests; chosen before they are run")
    margin: Annotated[float, Field(gt=0, lt=1)] = Field(0.01, description="largest loss that counts as not worse")
    rows: Annotated[tuple[GridRow, ...], Field(min_length=1)] = Field(description="the grid")

    def item(self, row_id: str, seed: int) -> Item:
        """The training of a row with a seed."""
        row = next(row for row in self.rows if row.id == row_id)
        return Item(row, seed, f"{self.name}-{row_id}-s{seed}")

    def parent(self, item: Item) -> Item | None:
        """The training that a mined row continues."""
        if item.row.mine is None:
            return None
        return self.item(item.row.mine, item.seed if item.row.parent_seed is None else item.row.parent_seed)

    def hardness_source(self, item: Item) -> Item | None:
        """The training whose hardness a mined row takes, where that is another than its own parent."""
        parent, seed = self.parent(item), item.row.hardness_of_seed
        if parent is None or seed is None or seed == parent.seed:
            return None
        return self.item(parent.row.id, seed)

    def start(self, item: Item) -> Item | None:
        """The training with whose weights a row begins."""
        return self.item(item.row.start.row, item.row.start.seed) if item.row.start else None

    def teachers(self, item: Item) -> list[Item]:
        """The trainings that a row learns from."""
        return [self.item(teacher.row, teacher.seed) for teacher in item.row.teachers]

    def needs(self, item: Item) -> list[Item]:
        """The trainings whose run folders must be there before this one begins."""
        found = (self.parent(item), self.hardness_source(item), self.start(item), *self.teachers(item))
        return list({needed.stem: needed for needed in found if needed is not None}.values())

    def _siblings(self, item: Item) -> list[Item]:
        """The same row with the seed whose hardness is shared: its mining measures that hardness."""
        shared = self.hardness_source(item) is not None and item.row.hardness_of_seed in item.row.seeds
        return [self.item(item.row.id, item.row.hardness_of_seed or 0)] if shared else []

    def items(self, only: Sequence[str] = ()) -> list[Item]:
        """All trainings, every one behind what it needs; the first seed of every row before any second seed.

        With `only`: those of these rows and what they need.

        Raises:
            ConfigError: where `only` names no row.
        """
        known = [row.id for row in self.rows]
        unknown = [row_id for row_id in only if row_id not in known]
        if unknown:
            hints = "".join(_hint(row_id, known) for row_id in unknown)
            raise ConfigError(
                f"{self.name} has no row {', '.join(unknown)}{hints}", f"Its rows are: {', '.join(known)}."
            )
        longest = max(len(row.seeds) for row in self.rows)
        ordered: dict[str, Item] = {}
        for position in range(longest):
            for row in self.rows:
                if position < len(row.seeds) and (not only or row.id in only):
                    self._append(ordered, self.item(row.id, row.seeds[position]))
        return list(ordered.values())

    def _append(self, ordered: dict[str, Item], item: Item) -> None:
        if item.stem not in ordered:
            for earlier in (*self.needs(item), *self._siblings(item)):
                self._append(ordered, earlier)
            ordered[item.stem] = item


def load_study(path: Path) -> Study:
    """A study from its TOML file; a recipe that ends in .toml is looked up beside it.

    Raises:
        ConfigError: where the file cannot be read, or for every wrong key, value and dependency at once.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the study {path}: {error}", "Pass a TOML file.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}", "Correct that line.") from None
    study = parse_study(values, str(path))
    rows = tuple(
        row.model_copy(update={"recipe": str(path.parent / row.recipe)}) if row.recipe.endswith(".toml") else row
        for row in study.rows
    )
    return study.model_copy(update={"rows": rows})


def parse_study(values: Mapping[str, Any], origin: str) -> Study:
    """Validate nested values; ConfigError lists every problem."""
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        found: list[dict[str, Any]] = [dict(problem) for problem in error.errors()]
        # pydantic also calls a tuple too short when an item of it is wrong; the item says enough.
        prefixes = {problem["loc"][:length] for problem in found for length in range(len(problem["loc"]))}
        found = [problem for problem in found if problem["type"] != "too_short" or problem["loc"] not in prefixes]
        raise _wrong(origin, [_describe(problem) for problem in found]) from None
    problems = [*_row_problems(study), *_dependency_problems(study)] or _cycles(study)
    if problems:
        raise _wrong(origin, problems)
    return study


def load_studies(folder: Path) -> dict[Path, Study]:
    """The studies of a folder, by file.

    Raises:
        ConfigError: for a wrong file, or a name that two of them carry.
    """
    studies = {path: load_study(path) for path in sorted(folder.glob("*.toml"))}
    twice = _repeated(study.name for study in studies.values())
    if twice:
        raise ConfigError(f"{folder}: two studies are called {', '.join(twice)}", "Give each its own name.")
    return studies


def _row_problems(study: Study) -> Iterator[str]:
    yield from (f"rows: the id {row_id} is given twice" for row_id in _repeated(row.id for row in study.rows))
    yield from (f"splits: {split} is given twice" for split in _repeated(study.splits))
    known = [row.id for row in study.rows]
    if study.baseline is not None and study.baseline not in known:
        yield f"baseline: no row {study.baseline}{_hint(study.baseline, known)}"
    for row in study.rows:
        yield from (f"{row.id}.seeds: {seed} is given twice" for seed in _repeated(row.seeds))
        for override in row.overrides:
            key, separator, _ = override.partition("=")
            if not separator or key.strip().count(".") != 1:
                yield f"{row.id}.set: expected section.key=value, found {override!r}"
            elif key.strip() in OWN_KEYS:
                yield f"{row.id}.set: {key.strip()} is not set here: {OWN_KEYS[key.strip()]}"
        if row.mine is not None and row.weights:
            yield f"{row.id}.weights: a mined row begins with the weights of the row {row.mine}"
        if row.start is not None and (row.weights or row.mine is not None):
            yield f"{row.id}.start: the row's weights come from {'mine' if row.mine is not None else 'weights'} already"
        if row.mine is None and row.control != "none":
            yield f"{row.id}.control: {row.control} needs mine = ROW"
        if row.mine is None and row.hardness_of_seed is not None:
            yield f"{row.id}.hardness_of_seed: needs mine = ROW"
        if row.mine is None and row.parent_seed is not None:
            yield f"{row.id}.parent_seed: needs mine = ROW"


def _dependency_problems(study: Study) -> Iterator[str]:
    seeds = {row.id: row.seeds for row in study.rows}
    for row in study.rows:
        mined = row.seeds if row.parent_seed is None else (row.parent_seed,)
        wanted = [("mine", row.mine, seed) for seed in mined if row.mine is not None]
        if row.mine is not None and row.hardness_of_seed is not None:
            wanted.append(("hardness_of_seed", row.mine, row.hardness_of_seed))
        wanted += [("start", row.start.row, row.start.seed)] if row.start else []
        wanted += [("teachers", teacher.row, teacher.seed) for teacher in row.teachers]
        unknown = {(field, other) for field, other, _ in wanted if other not in seeds}
        yield from (f"{row.id}.{field}: no row {other}{_hint(str(other), seeds)}" for field, other in sorted(unknown))
        for field, other, seed in wanted:
            if other in seeds and seed not in seeds[other]:
                has = ", ".join(map(str, seeds[other]))
                yield f"{row.id}.{field}: the row {other} has no seed {seed} (it has {has})"


def _cycles(study: Study) -> list[str]:
    """Rows that need themselves, as `a -> b -> a`, each circle once."""
    needs = {
        row.id: [*filter(None, [row.mine]), *(needed.row for needed in (row.start, *row.teachers) if needed)]
        for row in study.rows
    }
    found: dict[frozenset[str], str] = {}

    def walk(row_id: str, way: tuple[str, ...]) -> None:
        if row_id in way:
            circle = way[way.index(row_id) :]
            found.setdefault(frozenset(circle), f"rows need each other: {' -> '.join((*circle, row_id))}")
            return
        for needed in needs[row_id]:
            walk(needed, (*way, row_id))

    for row in study.rows:
        walk(row.id, ())
    return list(found.values())


def _repeated(names: Iterable[Any]) -> list[str]:
    seen: list[Any] = list(names)
    return [str(name) for name in dict.fromkeys(seen) if seen.count(name) > 1]


def _hint(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def _describe(problem: Mapping[str, Any]) -> str:
    key = re.sub(r"\.(\d+)", r"[\1]", ".".join(str(part) for part in problem["loc"]))
    if problem["type"] == "extra_forbidden":
        models: dict[str, type[Section]] = {"rows": GridRow, "teachers": Teacher}
        place = next((part for part in reversed(problem["loc"][:-1]) if isinstance(part, str)), "")
        model = models.get(place, Study)
        known = [field.alias or name for name, field in model.model_fields.items()]
        return f"{key}: no such key{_hint(str(problem['loc'][-1]), known)}"
    if problem["type"] == "missing":
        return f"{key}: is missing"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "string_pattern_mismatch":
        message = "expected lower-case letters, digits and single hyphens"
    return f"{key}: {message}, found {problem['input']!r}"


def _wrong(origin: str, problems: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"{origin}: {len(problems)} wrong settings: {'; '.join(problems)}",
        "Correct them; docs/how-to/studies.md lists the keys of a study.",
    )
