"""Judging a run: from its weights and rows to predictions, metrics.json, figures and report.html."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from lentigo.core.errors import CheckpointError, ConfigError, DataError
from lentigo.core.files import write_json_atomic, write_text_atomic
from lentigo.core.predictions import Predictions
from lentigo.core.recipes import load_recipe
from lentigo.core.run_dir import RunDir
from lentigo.data.cache import open_images
from lentigo.data.catalog import Catalog
from lentigo.data.dataset import LesionDataset
from lentigo.evaluation.evaluate import Judgement, classification_report, judge
from lentigo.evaluation.examine import examine
from lentigo.evaluation.fit_calibration import fit_calibration
from lentigo.evaluation.measure_outliers import measure_outliers
from lentigo.evaluation.metrics import score
from lentigo.evaluation.outliers import OutlierJudgement
from lentigo.evaluation.robustness import Robustness, judge_corrupted, predict_corrupted, stratified_subset
from lentigo.evaluation.run_metrics import (
    WEIGHTS_KEY,
    judge_remedy,
    judged_weights,
    present_weights,
    read_metrics,
    require_present_weights,
)
from lentigo.evaluation.run_records import (
    drop_stale,
    read_calibration,
    read_examinations,
    read_findings,
    read_judgements,
)
from lentigo.evaluation.run_report import JUDGED_SPLITS, render_report
from lentigo.models.checkpoint import ModelSpec, add_calibration, load_checkpoint
from lentigo.training.inference import Progress, predict_logits
from lentigo.training.rows import judged_rows
from lentigo.training.run import read_catalog


def epoch_scores(predictions: Predictions) -> Mapping[str, float]:
    """What an epoch's log row says of the validation predictions."""
    overall = score(predictions.label, predictions.probs).overall
    return {
        "loss": float(overall["log_loss"][0]),
        "accuracy": float(overall["accuracy"][0]),
        "balanced_accuracy": float(overall["balanced_accuracy"][0]),
        "macro_f1": float(overall["macro_f1"][0]),
    }


def evaluate_run(
    run: RunDir, split: str, *, resamples: int = 2000, progress: Progress = lambda done, total: None
) -> Judgement:
    """Judge the run's chosen weights on one image per lesion of `split`; a look at test is counted.

    Writes predictions/SPLIT.csv, predictions/SPLIT.report.txt, metrics.json, examination.json, figures, report.html and
    MODEL_CARD.md; on val also calibration.json, which the checkpoint carries from then on. Where val was judged with
    other weights before (an interrupted run that was resumed), what else was found of those is dropped, with a warning.

    Raises:
        ConfigError: for a split that may not be judged.
        CheckpointError: where the run has no usable weights or rows.
        DataError: where the split has no rows or images cannot be read.
    """
    if split not in JUDGED_SPLITS:
        raise ConfigError(f"--split takes val or test; found {split!r}", "Scores on training images would say nothing.")
    if not run.best.is_file():
        raise CheckpointError(
            f"{run.path} has no chosen weights yet (state: {run.read_status()['state']})",
            f"Finish the training first: lentigo train --resume {run.path}",
        )
    catalog = read_catalog(run)
    rows = judged_rows(catalog, split)
    if not len(rows):
        raise DataError(f"the run's catalogue has no rows in {split}", "Judge another split.")
    config = load_recipe(str(run.config))
    network, spec = load_checkpoint(run.best)
    trained_on = spec.provenance.get("catalog_sha256", catalog.sha256)
    if trained_on != catalog.sha256:
        raise CheckpointError(
            f"{run.best} was trained on the rows {trained_on[:12]}; the run's catalogue is {catalog.sha256[:12]}",
            "Put back the weights or the catalogue of this run; scores on other rows could count trained lesions.",
        )
    read_judgements(run), read_findings(run, split)  # damaged files must be known before anything is judged or counted
    if split == "test":
        _prepare_calibration(run, spec)
        if run.read_looks() and run.predictions("test").is_file() and "test" not in read_metrics(run):
            return judge_again(run, "test", resamples=resamples)  # a judgement that was cut off after its look
    with run.lock():
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dataset = LesionDataset(open_images(rows, spec.preprocess, config.data))
        predictions = predict_logits(
            network.to(device),
            dataset,
            device=device,
            channels_last=config.training.channels_last,
            views=spec.views,
            progress=progress,
        )
        if split == "test":
            run.add_look()
            predictions.to_csv(run.predictions(split))  # at once: what was looked at is never computed again
        return _judge(run, split, predictions, catalog, resamples, present_weights(run))


def judge_again(run: RunDir, split: str, *, resamples: int = 2000) -> Judgement:
    """Judge the predictions that the run holds already; no network is run and no look at test is taken.

    Raises:
        CheckpointError: where they are of other weights than the run's present ones.
        DataError: where there are none.
    """
    with run.lock():
        if not run.predictions(split).is_file():
            raise DataError(f"{run.path} holds no predictions of {split}", judge_remedy(run, split))
        require_present_weights(run, split)
        predictions = Predictions.from_csv(run.predictions(split))
        return _judge(run, split, predictions, read_catalog(run), resamples, judged_weights(run, split))


def _prepare_calibration(run: RunDir, spec: ModelSpec) -> None:
    """What test is judged by, before it is opened: of these very weights, fitted on stored val predictions if need be.

    Raises:
        CheckpointError: where val was judged with other weights.
    """
    calibration = read_calibration(run)
    if calibration is None and run.predictions("val").is_file() and "val" in read_metrics(run):
        judge_again(run, "val")
    elif calibration is not None and spec.calibration != calibration.model_dump(mode="json"):
        raise CheckpointError(
            f"{run.best} is not the model that {run.calibration.name} was fitted for; the training went on since",
            f"Judge val again first: lentigo evaluate {run.path}",
        )


def write_report_again(run: RunDir) -> None:
    """The report and the model card anew; splits that an earlier version judged are examined first.

    Raises:
        DataError: where nothing was judged yet, or a file is damaged or missing.
    """
    judgements, examined = read_judgements(run), read_examinations(run)
    missing = [split for split in JUDGED_SPLITS if split in judgements and split not in examined]
    for split in missing:
        judge_again(run, split, resamples=judgements[split].resamples)
    if not missing:
        with run.lock():
            render_report(run)


def _judge(
    run: RunDir, split: str, predictions: Predictions, catalog: Catalog, resamples: int, weights: str
) -> Judgement:
    """Val is also what the calibration is fitted on; stored predictions of test are then examined with it, too.

    `weights` is the digest of those that the predictions are of, empty where it is not known.
    """
    if split == "val" and weights and (dropped := drop_stale(run, weights)):
        again = f". {judge_remedy(run, 'test')} That is one more look" if "test" in dropped else ""
        warnings.warn(
            f"the weights changed since they were judged; dropped from {run.path}: {', '.join(dropped)}{again}",
            stacklevel=2,
        )
    judgement = _examine(run, split, predictions, catalog, resamples, weights)
    if split == "val" and "test" in read_metrics(run) and run.predictions("test").is_file():
        test = Predictions.from_csv(run.predictions("test"))
        _examine(run, "test", test, catalog, resamples, judged_weights(run, "test"))
    render_report(run)
    return judgement


def _examine(
    run: RunDir, split: str, predictions: Predictions, catalog: Catalog, resamples: int, weights: str
) -> Judgement:
    judgement = judge(predictions, split=split, resamples=resamples, synthetic=catalog.synthetic)
    if split == "val":
        fit_calibration(predictions, resamples=resamples).to_json(run.calibration)
    calibration = read_calibration(run)
    examination = examine(
        predictions,
        catalog,
        split=split,
        calibration=calibration,
        resamples=resamples,
        synthetic=catalog.synthetic,
    )
    examined = {name: one.as_dict() for name, one in read_examinations(run).items()}
    predictions.to_csv(run.predictions(split))
    write_text_atomic(run.text_report(split), classification_report(judgement))
    write_json_atomic(run.examination, examined | {split: examination.as_dict()})
    if split == "val" and calibration is not None and run.best.is_file():
        add_calibration(run.best, calibration.model_dump(mode="json"))
    facts = judgement.as_dict() | ({WEIGHTS_KEY: weights} if weights else {})
    write_json_atomic(run.metrics, read_metrics(run) | {split: facts})
    return judgement


def judge_corruptions(
    run: RunDir, *, max_images: int | None, resamples: int = 2000, progress: Progress = lambda done, total: None
) -> Robustness:
    """Judge the run's chosen weights on corrupted copies of val images, and write robustness.json and the report.

    `max_images` of the split, drawn by class, are judged; None takes all. Test is never corrupted: these scores serve
    to choose models.

    Raises:
        CheckpointError: where the run has no usable weights or rows, or val was judged with other weights.
        ConfigError: where `max_images` is too few.
        DataError: where val was not judged yet, has no rows, or images cannot be read.
    """
    _require_val(run)
    catalog, config = read_catalog(run), load_recipe(str(run.config))
    rows = judged_rows(catalog, "val")
    network, spec = load_checkpoint(run.best)
    with run.lock():
        device = "cuda" if torch.cuda.is_available() else "cpu"
        predictions = predict_corrupted(
            network.to(device),
            spec.preprocess,
            stratified_subset(rows, max_images),
            device=device,
            channels_last=config.training.channels_last,
            views=spec.views,
            progress=progress,
        )
        found = judge_corrupted(
            predictions, split="val", n_available=len(rows), resamples=resamples, synthetic=catalog.synthetic
        )
        for (kind, severity), table in predictions.items():
            table.to_csv(run.predictions(f"corrupted/{kind}-{severity}"))
        write_json_atomic(run.robustness, found.as_dict())
        render_report(run)
    return found


def judge_outliers(
    run: RunDir,
    photographs: Sequence[Path] = (),
    *,
    resamples: int = 2000,
    progress: Progress = lambda done, total: None,
) -> OutlierJudgement:
    """Fit and judge the run's gate for images of other kinds, as `measure_outliers`, and write the report.

    Raises:
        CheckpointError: where the run has no usable weights or rows, or val was judged with other weights.
        ConfigError: for folders of photographs whose names are taken.
        DataError: where val was not judged yet, a split or folder is empty, or images cannot be read.
    """
    _require_val(run)
    found = measure_outliers(run, photographs, resamples=resamples, progress=progress)
    with run.lock():
        render_report(run)
    return found


def _require_val(run: RunDir) -> None:
    if "val" not in read_judgements(run):
        raise DataError(f"{run.path} was not judged on val yet", f"Run `lentigo evaluate {run.path}` first.")
    require_present_weights(run, "val")
