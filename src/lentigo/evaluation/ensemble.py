"""Ensembles of runs: their averaged predictions, judged like those of any one.

The default averages probabilities (Lakshminarayanan, Pritzel & Blundell, NeurIPS 2017). Probabilities of all runs lie
on one scale; logits do not, since label smoothing, distillation and training time stretch them, so that their mean
listens most to the most confident run. A run that is surely wrong can lower the mean probability of the truth to
(K - 1) / K of what the others say, but the mean logit without bound. The mean of logits stays a choice: it is what
test-time views are averaged by, and a prior correction of each run carries over to it unchanged.

In either case the log loss is at most the mean of the runs' own (Jensen's inequality; the normaliser of a geometric
mean is at most 1). No such promise holds for the share of right answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from lentigo.core.errors import CheckpointError, ConfigError, DataError
from lentigo.core.files import write_json_atomic, write_text_atomic
from lentigo.core.predictions import Predictions
from lentigo.core.recipes import load_recipe
from lentigo.core.run_dir import RunDir
from lentigo.evaluation.arms import Arm, align, read_arms
from lentigo.evaluation.compare import Comparisons, compare
from lentigo.evaluation.evaluate import Judgement, classification_report, judge
from lentigo.evaluation.metrics import Estimate, Floats
from lentigo.evaluation.resampling import LOWER_IS_BETTER, arm_estimates, check_metric, mean_scores, resampled_scores
from lentigo.evaluation.scores import Scores

Method = Literal["probs", "logits"]
CHOSEN_ON = "val"


class Member(BaseModel):
    """A run as far as its answers cost something: what is built, what it sees, how long it was trained.

    `training_min` is the run's own, without parents or teachers; None where the status does not say.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    recipe: str
    seed: int
    architecture: str
    input_size_px: int
    color_mode: str
    views: int
    channels_last: bool
    training_min: float | None


class Ensemble(BaseModel):
    """The content of ensemble.json."""

    model_config = ConfigDict(frozen=True)

    method: Method
    members: tuple[Member, ...]


class EnsembleResult(Scores):
    """Members and ensemble on the same images: name -> metric -> score, and the ensemble against the best member.

    `best` is the member with the best `metric` on `best_chosen_on`, which is val also where test is judged. On val
    itself the best member is the luckiest of several, so that the difference is a little too small.
    """

    name: str
    method: Method
    split: str
    metric: str
    n_images: int
    n_lesions: int
    resamples: int
    seed: int
    members: dict[str, dict[str, Estimate]]
    ensemble: dict[str, Estimate]
    best: str
    best_chosen_on: str
    against_best: Comparisons
    test_looks: int


def average(tables: Sequence[Predictions], method: Method = "probs") -> Predictions:
    """One table from several of the same images: the logarithm of the mean probabilities, or the mean logits.

    Rows are in the order of sorted image ids; the softmax of the logits gives the averaged probabilities back.

    Raises:
        DataError: where images, labels or lesions differ.
    """
    aligned = align({str(number): [table] for number, table in enumerate(tables)})
    probs = np.stack([one for (one,) in aligned.probs.values()])
    # Log-probabilities are logits less a number per image, which changes no answer.
    logits = _log(probs.mean(axis=0)) if method == "probs" else _log(probs).mean(axis=0)
    return Predictions(aligned.image_id, aligned.lesion_id, aligned.label, logits.astype(np.float32))


def describe_member(run: RunDir) -> Member:
    """What a run's config.toml and status.json say about the cost of its answers."""
    config, elapsed_s = load_recipe(str(run.config)), run.read_status().get("elapsed_s")
    return Member(
        name=run.path.resolve().name,
        recipe=config.about.name,
        seed=config.training.seed,
        architecture=config.model.architecture,
        input_size_px=config.preprocess.resize_steps_px[-1],
        color_mode=config.preprocess.color_mode,
        views=config.inference.views,
        channels_last=config.training.channels_last,
        training_min=None if elapsed_s is None else elapsed_s / 60,
    )


def read_ensemble(folder: Path) -> Ensemble:
    """The ensemble.json of a folder; CheckpointError where it is damaged."""
    file = RunDir(folder).ensemble
    try:
        return Ensemble.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, ValidationError) as error:
        raise CheckpointError(f"{file} is damaged: {error}", "Delete the folder and make the ensemble again.") from None


def build_ensemble(
    paths: Sequence[Path],
    *,
    root: Path,
    name: str,
    split: str = "val",
    method: Method = "probs",
    metric: str = "balanced_accuracy",
    resamples: int = 2000,
    seed: int = 0,
) -> EnsembleResult:
    """Average the predictions of runs on a split, judge them and write the folder root/name.

    No network is run and nothing is opened: every member must have been judged on the split before. The first
    judgement of an ensemble on test is noted as a look. A further split of the same ensemble goes to the same folder.

    Raises:
        ConfigError: for fewer than two runs, for names that do not fit, or a folder with something else in it.
        CheckpointError: for a path that is no run.
        DataError: where predictions are missing or are of other rows.
    """
    check_metric(metric)
    runs = [RunDir.open(path) for path in paths]
    if len(runs) < 2:
        raise ConfigError(f"an ensemble needs two or more runs; found {len(runs)}", "lentigo ensemble RUN RUN --name X")
    content = Ensemble(method=method, members=tuple(describe_member(run) for run in runs))
    arms = [Arm(member.name, (run.path,)) for member, run in zip(content.members, runs, strict=True)]
    tables, synthetic = read_arms(arms, split)
    if name in tables:
        raise ConfigError(f"--name is that of a member: {name}", "Choose another --name.")
    rows_sha256 = _common_rows(runs)
    folder = RunDir(root / name)
    if not folder.path.exists() or not _is_same(folder, content, rows_sha256):
        RunDir.check_name(root, name)
    best = _best_member(tables if split == CHOSEN_ON else read_arms(arms, CHOSEN_ON)[0], metric)
    predictions = average([table for (table,) in tables.values()], method)
    aligned = align({**tables, name: [predictions]})
    samples = resampled_scores(aligned, resamples=resamples, seed=seed)
    scores = arm_estimates(aligned, mean_scores(aligned), samples)
    against_best = compare(
        {best: tables[best], name: [predictions]},
        split=split,
        metric=metric,
        resamples=resamples,
        seed=seed,
        synthetic=synthetic,
    )
    judgement = judge(predictions, split=split, resamples=resamples, seed=seed, synthetic=synthetic)
    _write(folder, content, rows_sha256, predictions, judgement)
    return EnsembleResult(
        name=name,
        method=method,
        split=split,
        metric=metric,
        n_images=len(predictions),
        n_lesions=len(set(predictions.lesion_id)),
        resamples=resamples,
        seed=seed,
        members={member: scores[member] for member in tables},
        ensemble=scores[name],
        best=best,
        best_chosen_on=CHOSEN_ON,
        against_best=against_best,
        test_looks=len(folder.read_looks()),
        synthetic=synthetic,
    )


def _log(probs: Floats) -> Floats:
    """Natural logarithm; a probability that underflowed to 0 counts as the least positive number."""
    logarithms: Floats = np.log(np.maximum(probs, np.finfo(np.float64).tiny))
    return logarithms


def _common_rows(runs: Sequence[RunDir]) -> str:
    """The digest of the rows of all runs: with other rows a member could have been trained on what is judged."""
    digests = {run.path: run.catalog_digest.read_text(encoding="utf-8").strip() for run in runs}
    if len(set(digests.values())) > 1:
        found = ", ".join(f"{path} {digest[:12]}" for path, digest in digests.items())
        raise DataError(
            f"expected runs on the same rows; found {found}",
            "Train all members on one table with one split; `lentigo leaderboard` lists the runs by their rows.",
        )
    return next(iter(digests.values()))


def _is_same(folder: RunDir, content: Ensemble, rows_sha256: str) -> bool:
    """Whether the folder holds this very ensemble, judged on this or another split."""
    if not folder.ensemble.is_file():
        return False
    same_rows = folder.catalog_digest.read_text(encoding="utf-8").strip() == rows_sha256
    return same_rows and read_ensemble(folder.path) == content


def _best_member(tables: Mapping[str, Sequence[Predictions]], metric: str) -> str:
    """The member with the best metric, the first of equals; an undefined score comes last."""
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    scores = {member: sign * one[metric] for member, one in mean_scores(align(tables)).items()}
    return max(scores, key=lambda member: -np.inf if np.isnan(scores[member]) else scores[member])


def _write(
    folder: RunDir,
    content: Ensemble,
    rows_sha256: str,
    predictions: Predictions,
    judgement: Judgement,
) -> None:
    """The files of a judged run that an ensemble has too; ensemble.json last, it makes the folder one."""
    split = judgement.split
    if split == "test" and not folder.predictions(split).is_file():
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.add_look()
    predictions.to_csv(folder.predictions(split))
    write_text_atomic(folder.text_report(split), classification_report(judgement))
    before = json.loads(folder.metrics.read_text(encoding="utf-8")) if folder.metrics.is_file() else {}
    write_json_atomic(folder.metrics, before | {split: judgement.as_dict()})
    write_text_atomic(folder.catalog_digest, f"{rows_sha256}\n")
    folder.write_status("done", message="ensemble", synthetic=judgement.synthetic)
    write_json_atomic(folder.ensemble, content.model_dump(mode="json"))
