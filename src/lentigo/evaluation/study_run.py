"""Running a study: train or resume what is missing, judge it, and write one result file per training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lentigo.core.errors import ConfigError, DataError, LentigoError, Stopped
from lentigo.core.files import write_json_atomic, write_text_atomic
from lentigo.core.predictions import Predictions
from lentigo.core.run_dir import RunDir
from lentigo.data.catalog import Catalog
from lentigo.evaluation.evaluate import Judgement
from lentigo.evaluation.run_evaluation import epoch_scores, evaluate_run, judge_again
from lentigo.evaluation.run_metrics import judged_weights, present_weights, read_metrics
from lentigo.evaluation.study import Item, Study
from lentigo.evaluation.study_compare import write_comparison
from lentigo.evaluation.study_plan import (
    Folders,
    Planned,
    check_weights,
    is_trained,
    overrides,
    plan_study,
    resolve,
    trainings,
)
from lentigo.evaluation.summary import summarise_run
from lentigo.training.devices import Devices
from lentigo.training.events import Listener, Message, Validating
from lentigo.training.loop import Outcome, Score
from lentigo.training.mining_run import mine_run
from lentigo.training.run import resume_run, start_run

Training = tuple[RunDir, Outcome]


@dataclass(frozen=True)
class Steps:
    """The calls that take long; tests pass shorter ones."""

    start: Callable[..., Training] = start_run
    resume: Callable[..., Training] = resume_run
    mine: Callable[..., Training] = mine_run
    judge: Callable[..., Judgement] = evaluate_run
    now_s: Callable[[], float] = time.monotonic


@dataclass
class StudyOutcome:
    """Result files written, trainings left by the time limit, and the one that was interrupted (or empty)."""

    written: list[Path] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    interrupted: str = ""


@dataclass(frozen=True)
class StudyRunner:
    """One study on one catalogue: its trainings and result files."""

    study: Study
    catalog: Catalog
    folders: Folders
    where: Devices
    listen: Listener
    score: Score = epoch_scores
    steps: Steps = Steps()

    def run(self, only: Sequence[str] = (), time_limit_min: float = 0.0) -> StudyOutcome:
        """Run what is missing; a stopped study goes on where it stopped when it is run again.

        `only` names rows; what they need runs too. After `time_limit_min` (0: none) no further training begins.

        Raises:
            ConfigError: before anything runs, for wrong recipes and for results or runs of other settings.
            LentigoError: of a row that failed; its message begins with the row.
        """
        planned = plan_study(self.study, self.catalog, self.folders, tuple(only))
        check_weights(trainings(self.study, planned, self.folders), self.folders)
        digests = {plan.item.stem: plan.digest for plan in planned}
        outcome, begin_s = StudyOutcome(), self.steps.now_s()
        for number, plan in enumerate(planned, start=1):
            if plan.state == "done":
                continue
            if time_limit_min and self.steps.now_s() - begin_s >= 60 * time_limit_min:
                outcome.left.append(plan.item.stem)
                continue
            self._say(f"{number} of {len(planned)}: {plan.item.row.title}, seed {plan.item.seed} ({plan.item.stem})")
            run = self._ensure(plan.item, digests)
            if isinstance(run, str):
                outcome.interrupted = run
                break
            with _named(plan.item):
                outcome.written.append(self._record(plan, run))
        if (compared := write_comparison(self.study, self.folders)) is not None:
            outcome.written.append(compared)
        return outcome

    def _ensure(self, item: Item, digests: dict[str, str]) -> RunDir | str:
        """The finished run of a training, trained now where need be; its stem where that was interrupted."""
        run = self.folders.run(item)
        if is_trained(run):
            return run
        for needed in self.study.needs(item):
            if isinstance(found := self._ensure(needed, digests), str):
                return found
        with _named(item):
            if not run.path.exists() and self.folders.result(item).is_file():
                self._say(f"training {item.stem} again: its run folder is gone, its result stays as it is")
            try:
                run, outcome = self._train(item, digests[item.stem])
            except Stopped:
                return item.stem
        return run if outcome.finished else item.stem

    def _train(self, item: Item, digest: str) -> Training:
        run, row, shared = self.folders.run(item), item.row, {"where": self.where, "listen": self.listen}
        if run.path.exists():
            return self.steps.resume(run.path, score=self.score, **shared)
        write_text_atomic(self.folders.digest(item), f"{digest}\n")
        shared |= {"root": self.folders.runs, "name": item.stem, "score": self.score}
        if (parent := self.study.parent(item)) is None:
            return self.steps.start(resolve(self.study, item, self.folders), self.catalog, **shared)
        return self.steps.mine(
            self.folders.run(parent),
            row.recipe,
            control=None if row.control == "none" else row.control,
            overrides=overrides(self.study, item, self.folders),
            hardness=self._hardness(item),
            **shared,
        )

    def _hardness(self, item: Item) -> Path | None:
        source = self.study.hardness_source(item)
        if source is None or item.row.control == "continuation":  # which needs no hardness
            return None
        folder = self.folders.run(source).mining
        tables = sorted(folder.glob("*/hardness.csv"))
        if len(tables) != 1:
            raise DataError(
                f"hardness_of_seed = {source.seed}: expected one */hardness.csv in {folder}, found {len(tables)}",
                "Drop hardness_of_seed: rows of different fold settings cannot share a hardness."
                if tables
                else f"Give a mined row the seed {source.seed}, so that {source.stem} is mined first.",
            )
        return tables[0]

    def _record(self, plan: Planned, run: RunDir) -> Path:
        """Judge, copy the predictions, and write the result last: its file says that the training is done."""
        for split in self.study.splits:
            if split == "test" and run.read_looks() and split not in read_metrics(run):
                judge_again(run, split)  # a look that was taken is not taken again
            elif self._needs_judging(run, split):
                self._say(f"judging {split}")
                self.steps.judge(run, split, progress=lambda done, total: self.listen(Validating(done, total)))
        for split in self.study.splits:
            Predictions.from_csv(run.predictions(split)).to_csv(self.folders.predictions(plan.item, split))
        return write_json_atomic(self.folders.result(plan.item), self._result(plan, run))

    def _needs_judging(self, run: RunDir, split: str) -> bool:
        judged = split in read_metrics(run)
        if split == "test":
            return not (judged and run.read_looks())  # one look; the numbers of the first stand
        return not (judged and run.predictions(split).is_file() and judged_weights(run, split) == present_weights(run))

    def _result(self, plan: Planned, run: RunDir) -> dict[str, Any]:
        row, item = plan.item.row, plan.item
        about: dict[str, Any] = {
            "name": self.study.name,
            "row": row.id,
            "label": row.title,
            "seed": item.seed,
            "digest": plan.digest,
        }
        if (parent := self.study.parent(item)) is not None:
            about |= {"mined": parent.stem, "control": row.control}
        if row.start:
            about["start"] = self.study.item(row.start.row, row.start.seed).stem
        if row.teachers:
            about["teachers"] = [teacher.stem for teacher in self.study.teachers(item)]
        summary = summarise_run(run, self.study.track)
        summary["settings"] = _without_folders(summary["settings"])
        summary["metrics"] = {split: summary["metrics"][split] for split in self.study.splits}
        return {"study": about} | summary

    def _say(self, text: str) -> None:
        self.listen(Message(f"{self.study.name}: {text}"))


def _without_folders(value: Any) -> Any:
    """Settings with `RUN/FILE` in place of RUN/checkpoints/FILE, and names in place of other absolute paths."""
    if isinstance(value, dict):
        return {name: _without_folders(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_without_folders(part) for part in value]
    if isinstance(value, str) and Path(value).parent.name == "checkpoints":
        return f"{Path(value).parent.parent.name}/{Path(value).name}"
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


@contextmanager
def _named(item: Item) -> Iterator[None]:
    """Errors say which row failed."""
    try:
        yield
    except LentigoError as error:
        error.message = f"row {item.row.id}, seed {item.seed}: {error.message}"
        raise


def plan_facts(planned: Sequence[Planned]) -> list[dict[str, Any]]:
    """The plan for a table or JSON."""
    return [
        {"row": plan.item.row.id, "seed": plan.item.seed, "state": plan.state, "detail": plan.detail}
        for plan in planned
    ]


def check_time_limit(minutes: float) -> float:
    """The limit; ConfigError where it is not above zero."""
    if minutes <= 0:
        raise ConfigError(f"--time-limit must be above zero; found {minutes:g} minutes", "For example --time-limit 2h")
    return minutes
