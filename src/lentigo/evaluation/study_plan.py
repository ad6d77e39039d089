"""What of a study is done, and what is to be done: read from its result files and run folders; nothing is written."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lentigo.core.config import Config
from lentigo.core.errors import CheckpointError, ConfigError, DataError, first_five
from lentigo.core.recipes import load_recipe
from lentigo.core.run_dir import RunDir
from lentigo.data.catalog import Catalog
from lentigo.evaluation.study import Item, Study
from lentigo.models.weights import origin_name
from lentigo.training.mining_run import merge_round
from lentigo.training.state import WITHOUT_EFFECT

State = Literal["done", "to judge", "resumes", "to run", "waits for"]

# A teacher's or parent's path is covered by its own digest.
NOT_IN_DIGEST: dict[str, Any] = WITHOUT_EFFECT | {"distillation": {"teachers"}, "mining": {"parent"}}


@dataclass(frozen=True, slots=True)
class Folders:
    """Where run folders, committed results and weights files lie."""

    runs: Path
    results: Path
    weights: Path | None = None

    def run(self, item: Item) -> RunDir:
        """The run folder of a training, there or not."""
        return RunDir(self.runs / item.stem)

    def result(self, item: Item) -> Path:
        """The committed result of a training."""
        return self.results / f"{item.stem}.json"

    def predictions(self, item: Item, split: str) -> Path:
        """The committed predictions of a training."""
        return self.results / "predictions" / f"{item.stem}.{split}.csv"

    def digest(self, item: Item) -> Path:
        """The digest with which a run was started, beside its folder."""
        return self.runs / f"{item.stem}.digest"


@dataclass(frozen=True, slots=True)
class Planned:
    """One training, the digest of its settings, and how far it is."""

    item: Item
    digest: str
    state: State
    detail: str = ""


def plan_study(study: Study, catalog: Catalog, folders: Folders, only: tuple[str, ...] = ()) -> list[Planned]:
    """Every training (of the rows `only`, and what these need), in the order in which they run.

    Raises:
        ConfigError: for wrong recipes, and where results or run folders stem from other settings or rows; all at once.
        DataError: where a result is damaged.
    """
    items = study.items(only)
    digests = _digests(study, items, folders)
    planned: list[Planned] = []
    conflicts: list[str] = []
    for item in items:
        digest = digests[item.stem]
        recorded = read_result(folders.result(item)) if folders.result(item).is_file() else None
        found = _conflict(study, item, digest, catalog, folders, recorded)
        if found:
            conflicts.append(found)
        else:
            state, detail = _state(study, item, folders, recorded)
            planned.append(Planned(item, digest, state, detail))
    if conflicts:
        raise ConfigError(
            f"{study.name}: {len(conflicts)} trainings differ from what is there: {'; '.join(conflicts)}",
            "Give changed rows new ids, or move these files and run folders away to run the rows again; "
            "nothing is overwritten.",
        )
    return planned


def _digests(study: Study, items: list[Item], folders: Folders) -> dict[str, str]:
    """The digest of every training by stem; ConfigError lists the rows that cannot be resolved, all at once."""
    digests: dict[str, str] = {}
    wrong: dict[str, ConfigError] = {}
    for item in items:
        if item.row.id in wrong or any(other.stem not in digests for other in study.needs(item)):
            continue
        try:
            config = resolve(study, item, folders)
        except ConfigError as error:
            wrong[item.row.id] = error
            continue
        digests[item.stem] = settings_digest(config, item, [digests[other.stem] for other in study.needs(item)])
    if wrong:
        problems = [f"row {row_id}: {error.message}" for row_id, error in wrong.items()]
        remedies = list(dict.fromkeys(error.remedy for error in wrong.values()))
        raise ConfigError(f"{study.name}: {'; '.join(problems)}", " ".join(remedies))
    return digests


def resolve(study: Study, item: Item, folders: Folders) -> Config:
    """The configuration that a training starts with; a mined row's is its parent's with the recipe's keys in place.

    Raises:
        ConfigError: for wrong recipes and changes, and where a recipe mines but the row does not, or the reverse.
    """
    changes, row, parent = overrides(study, item, folders), item.row, study.parent(item)
    if parent is None:
        config = load_recipe(row.recipe, changes)
        if config.distillation.weight and not config.distillation.teachers:
            raise ConfigError("distillation.weight is set, but there are no teachers", "Add teachers to the row.")
        if config.mining.method != "none":
            raise ConfigError(f"the recipe {row.recipe} mines a finished run", 'Add mine = "ROW".')
        return config
    before = resolve(study, parent, folders)
    arm = [] if row.control == "none" else [f"mining.control={row.control}"]
    return merge_round(before, row.recipe, [*changes, *arm])


def overrides(study: Study, item: Item, folders: Folders) -> list[str]:
    """The changes of a training's recipe: those of the row, its seed, weights and teachers."""
    changes = [*item.row.overrides, f"training.seed={item.seed}"]
    weights = weights_file(item, folders)
    changes += [f"model.weights={weights or item.row.weights}"] if item.row.weights else []
    start = study.start(item)
    changes += [f"model.weights={folders.run(start).best}"] if start else []
    teachers = [str(folders.run(teacher).best) for teacher in study.teachers(item)]
    return changes + ([f"distillation.teachers={json.dumps(teachers)}"] if teachers else [])


def weights_file(item: Item, folders: Folders) -> Path | None:
    """Where the row's file of starting weights is looked up; None where it names no file."""
    name = item.row.weights
    return None if name in ("", "imagenet", "none") else (folders.weights or Path()) / name


def settings_digest(config: Config, item: Item, needed: list[str]) -> str:
    """Digest of all that decides a training's outcome, with the digests of the trainings it needs.

    Settings at their defaults are left out: a new key that changes nothing leaves finished rows valid.
    """
    settings = config.model_dump(mode="json", exclude=NOT_IN_DIGEST, exclude_defaults=True)
    settings.setdefault("model", {})["weights"] = origin_name(config.model.weights)
    # A section that lost its only changed key must read as one that was never written.
    settings = {name: section for name, section in settings.items() if section}
    facts = {"settings": settings, "control": item.row.control, "needs": needed}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def read_result(path: Path) -> dict[str, Any]:
    """A committed result; DataError where it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, found {type(content).__name__}")
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}", "Restore it from the repository's history.") from None
    return content


def is_trained(run: RunDir) -> bool:
    """Whether the folder holds a finished training."""
    return run.config.is_file() and run.read_status()["state"] == "done" and run.best.is_file()


def _conflict(
    study: Study, item: Item, digest: str, catalog: Catalog, folders: Folders, recorded: dict[str, Any] | None
) -> str:
    """Why a result or run folder of this name may not be used; empty where all is well."""
    run, path = folders.run(item), folders.result(item)
    if recorded is not None:
        about = recorded.get("study") or {}
        if (about.get("name"), about.get("row"), about.get("seed")) != (study.name, item.row.id, item.seed):
            return f"{path} belongs to no row or another one"
        if about.get("digest") != digest:
            return f"{path} was made with other settings"
        if recorded["data"]["sha256"] != catalog.sha256:
            return f"{path} was made on other rows of data ({recorded['data']['sha256'][:12]})"
        missing = [split for split in study.splits if split not in recorded["metrics"]]
        if missing and not is_trained(run):
            return f"{path} has no {' and no '.join(missing)}, and its run folder {run.path} is gone"
    if not run.path.exists():
        return ""
    if not run.config.is_file():
        return f"{run.path} is no run folder (no config.toml in it)"
    if _started_digest(item, folders) != digest:
        return f"{run.path} was started with other settings"
    if run.catalog_digest.is_file() and run.catalog_digest.read_text(encoding="utf-8").strip() != catalog.sha256:
        return f"{run.path} was started on other rows of data"
    return ""


def _started_digest(item: Item, folders: Folders) -> str:
    """The digest a run was started with; that of its own settings where it was started by hand."""
    path = folders.digest(item)
    if path.is_file():
        return path.read_text(encoding="utf-8").strip()
    return settings_digest(load_recipe(str(folders.run(item).config)), item, [])


def _state(study: Study, item: Item, folders: Folders, recorded: dict[str, Any] | None) -> tuple[State, str]:
    run = folders.run(item)
    missing = [split for split in study.splits if recorded is None or split not in recorded["metrics"]]
    if not missing:
        return "done", ""
    if is_trained(run):
        return "to judge", " and ".join(missing)
    absent = [other for other in study.needs(item) if not is_trained(folders.run(other))]
    gone = [other.stem for other in absent if folders.result(other).is_file()]
    waiting = [other.stem for other in absent if other.stem not in gone]
    if waiting:
        return "waits for", ", ".join(waiting)
    if run.path.exists():
        status = run.read_status()
        return "resumes", f"{status['state']} after epoch {status.get('epoch', 0)} of {status.get('epochs', '?')}"
    return "to run", f"trains {', '.join(gone)} again first: the run folder is gone" if gone else ""


def trainings(study: Study, planned: list[Planned], folders: Folders) -> list[Item]:
    """All trainings that begin or go on, with those whose folders are gone but needed again."""
    found: dict[str, Item] = {}

    def add(item: Item) -> None:
        if item.stem not in found and not is_trained(folders.run(item)):
            for needed in study.needs(item):
                add(needed)
            found[item.stem] = item

    for plan in planned:
        if plan.state != "done":
            add(plan.item)
    return list(found.values())


def check_weights(items: list[Item], folders: Folders) -> None:
    """CheckpointError where files of starting weights are missing; all at once, before hours of training."""
    wanted = {path: None for item in items if (path := weights_file(item, folders)) is not None}
    missing = [path for path in wanted if not path.is_file()]
    if missing:
        raise CheckpointError(
            f"{len(missing)} files of starting weights are missing: {first_five(missing)}",
            "Pass --weights-dir DIR, the folder that holds them.",
        )
