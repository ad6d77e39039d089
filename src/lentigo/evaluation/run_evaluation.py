"""Judging a run: from its weights and rows to predictions, metrics.json, figures and report.html."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from lentigo.core.config import Config, load_recipe
from lentigo.core.errors import CheckpointError, ConfigError, DataError, first_five
from lentigo.core.files import write_json_atomic, write_text_atomic
from lentigo.core.predictions import Predictions
from lentigo.core.run_dir import RunDir
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.cache import open_images
from lentigo.data.catalog import Catalog
from lentigo.data.dataset import LesionDataset
from lentigo.data.images import load_image
from lentigo.data.synthetic import SYNTHETIC_NOTICE
from lentigo.evaluation import figures
from lentigo.evaluation.evaluate import Judgement, classification_report, judge
from lentigo.evaluation.metrics import score
from lentigo.evaluation.mining_gallery import mining_section, write_suspects
from lentigo.evaluation.report import write_report
from lentigo.evaluation.show_data import draw_grids
from lentigo.evaluation.thumbnails import jpeg_thumbnail
from lentigo.models.checkpoint import load_checkpoint
from lentigo.models.weights import origin_name
from lentigo.training.inference import predict_logits
from lentigo.training.mining_table import RoundTable
from lentigo.training.rows import judged_rows
from lentigo.training.run import read_catalog

JUDGED_SPLITS = ("val", "test")
GALLERY_SIZE = 16
Progress = Callable[[int, int], None]


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

    Writes predictions/SPLIT.csv, predictions/SPLIT.report.txt, metrics.json, figures and report.html.

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
    read_judgements(run)  # a damaged metrics.json must be known before anything is judged or counted
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
        return _judge(run, split, predictions, catalog, resamples)


def judge_again(run: RunDir, split: str, *, resamples: int = 2000) -> Judgement:
    """Judge the predictions that the run holds already; no network is run and no look at test is taken."""
    with run.lock():
        return _judge(run, split, Predictions.from_csv(run.predictions(split)), read_catalog(run), resamples)


def _judge(run: RunDir, split: str, predictions: Predictions, catalog: Catalog, resamples: int) -> Judgement:
    judgement = judge(predictions, split=split, resamples=resamples, synthetic=catalog.synthetic)
    predictions.to_csv(run.predictions(split))
    write_text_atomic(run.text_report(split), classification_report(judgement))
    write_json_atomic(run.metrics, read_metrics(run) | {split: judgement.as_dict()})
    render_report(run)
    return judgement


def render_report(run: RunDir) -> Path:
    """Figures and report.html from metrics.json, predictions, log and catalogue; no network is run."""
    judgements = read_judgements(run)
    if not judgements:
        raise DataError(f"{run.path} was not judged yet", f"Run `lentigo evaluate {run.path}` first.")
    catalog = read_catalog(run)
    log_rows = read_log(run.log)
    gallery, run_facts = _gallery(run, catalog, judgements), _run_facts(run, catalog)
    note = SYNTHETIC_NOTICE if catalog.synthetic else ""
    if run.mining_rounds:
        write_suspects(run, RoundTable.from_csv(run.mining_rounds[-1]), catalog)
    config = load_recipe(str(run.config))
    metric, kept_epoch = config.training.selection_metric, run.read_status().get("best_epoch")
    drawn: dict[str, Path] = {"class_balance": figures.class_balance(catalog, run.figure("class_balance"), note=note)}
    if log_rows:
        drawn["curves"] = figures.curves(
            log_rows, run.figure("curves"), kept_epoch=kept_epoch, selection_metric=metric, note=note
        )
    drawn |= _image_grids(run, catalog, config)
    for split, judgement in judgements.items():
        confusion = figures.confusion(judgement.confusion, run.figure(f"confusion_{split}"), note=note)
        recall = {code: scores.recall for code, scores in judgement.per_class.items()}
        bars = figures.per_class_bars(recall, run.figure(f"per_class_{split}"), note=note)
        drawn |= {f"confusion_{split}": confusion, f"per_class_{split}": bars}
    return write_report(
        run.report,
        title=run.path.resolve().name,
        judgements=judgements,
        run_facts=run_facts,
        log_rows=log_rows,
        figures=drawn,
        mining=mining_section(run, catalog),
        gallery=gallery,
        synthetic=catalog.synthetic,
        test_looks=len(run.read_looks()),
        kept_epoch=kept_epoch,
        selection_metric=metric,
    )


def read_log(path: Path) -> list[dict[str, float]]:
    """Rows of log.csv; empty where there is none.

    Raises:
        DataError: where it is damaged.
    """
    if not path.is_file():
        return []
    try:
        rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
        return [{name: float(value) for name, value in row.items() if value} for row in rows]
    except (ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{path} is damaged: {error}", "Restore it, or delete it to go without curves.") from None


def read_metrics(run: RunDir) -> dict[str, Any]:
    """Content of metrics.json by split; empty where nothing was judged yet."""
    if not run.metrics.is_file():
        return {}
    return _read_object(run.metrics, "Delete it and run `lentigo evaluate` again.")


def read_judgements(run: RunDir) -> dict[str, Judgement]:
    """The judgements in metrics.json by split; DataError where it is damaged."""
    return {name: Judgement.from_dict(content) for name, content in read_metrics(run).items()}


def _read_object(path: Path, remedy: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}", remedy) from None
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged: expected an object, found {type(content).__name__}", remedy)
    return content


def _image_grids(run: RunDir, catalog: Catalog, config: Config) -> dict[str, Path]:
    """The 4x4 grids of training images as JPEG; none where the images have moved since."""
    try:
        prepared, augmented = draw_grids(catalog, config, run.figure("images").parent, "jpg", config.training.seed)
    except DataError:
        return {}
    return {"images": prepared, "images_augmented": augmented}


def _run_facts(run: RunDir, catalog: Catalog) -> dict[str, str]:
    config, status = load_recipe(str(run.config)), run.read_status()
    environment: dict[str, Any] = {}
    if run.environment.is_file():
        environment = _read_object(run.environment, "Restore it, or delete it to go without.")
    packages = environment.get("packages", {})
    changes = f", changed: {', '.join(config.about.changes)}" if config.about.changes else ""
    facts = {
        "recipe": f"{config.about.name}{changes}",
        "architecture": config.model.architecture,
        "weights at start": str(status.get("start") or origin_name(config.model.weights)),
        "input": f"{config.preprocess.color_mode}, {config.preprocess.resize_steps_px[-1]} px",
        "data": f"{catalog.name}: {len(catalog)} images of {len({row.lesion_id for row in catalog})} lesions",
        "rows (sha256)": catalog.sha256[:16],
        "seed": str(config.training.seed),
        **_extras(config),
        "epochs": str(status.get("epoch", "unknown")),
        "training time": _minutes(status.get("elapsed_s")),
        "machine": f"{environment.get('cpu', 'unknown')}, {environment.get('cores', '?')} cores",
        "versions": ", ".join(f"{name} {packages[name]}" for name in ("torch", "torchvision") if name in packages),
        "lentigo": f"{environment.get('lentigo', '')} {_short_commit(str(environment.get('commit', '')))}".strip(),
    }
    sessions = environment.get("sessions", [])
    return facts | ({"sessions": f"{len(sessions)} (environment.json)"} if len(sessions) > 1 else {})


def _extras(config: Config) -> dict[str, str]:
    """Facts that only some recipes have."""
    mining, extras = config.mining, {}
    if mining.method != "none":
        control = f", control {mining.control}" if mining.control != "none" else ""
        extras["hard mining"] = f"{mining.method}{control}, continues {mining.parent}"
    if config.distillation.teachers:
        extras["teachers"] = f"{len(config.distillation.teachers)}, weight {config.distillation.weight:g}"
    if config.loss.prior_correction:
        extras["prior correction"] = f"{config.loss.prior_correction:g}"
    if config.inference.views > 1:
        extras["views"] = f"{config.inference.views} at test time"
    return extras


def _short_commit(commit: str) -> str:
    """Twelve digits, and the + that marks uncommitted changes."""
    return commit[:12] + ("+" if commit.endswith("+") else "")


def _minutes(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds / 60:.1f} min"


def _gallery(run: RunDir, catalog: Catalog, judgements: Mapping[str, Judgement]) -> list[tuple[bytes, str, str, float]]:
    """The most confident errors of the last judged split: thumbnail, true code, answered code, probability."""
    split = next(name for name in reversed(JUDGED_SPLITS) if name in judgements)
    if not run.predictions(split).is_file():
        return []
    predictions = Predictions.from_csv(run.predictions(split))
    rows = {row.image_id: row for row in catalog}
    foreign = [image_id for image_id in predictions.image_id if image_id not in rows]
    if foreign:
        raise DataError(
            f"{run.predictions(split)} has images that are not the run's: {first_five(foreign)}",
            "Run `lentigo evaluate` again.",
        )
    probs = predictions.probs
    answered, confidence = probs.argmax(axis=1), probs.max(axis=1)
    errors = [i for i in (-confidence).argsort(kind="stable") if answered[i] != predictions.label[i]]
    gallery = []
    for i in errors[:GALLERY_SIZE]:
        row = rows[predictions.image_id[i]]
        try:
            image = load_image(row.path, row.member)
        except DataError:
            continue  # the report can be written again after the images have moved
        thumbnail = jpeg_thumbnail(image)
        gallery.append((thumbnail, CLASS_CODES[row.label], CLASS_CODES[answered[i]], float(confidence[i])))
    return gallery
