"""A run's report and model card, from what the run holds; no network is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lentigo.core.config import Config
from lentigo.core.errors import DataError, first_five
from lentigo.core.predictions import Predictions
from lentigo.core.recipes import load_recipe
from lentigo.core.run_dir import RunDir
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.catalog import Catalog
from lentigo.data.images import load_image
from lentigo.data.synthetic import SYNTHETIC_NOTICE
from lentigo.evaluation import figures
from lentigo.evaluation.card_facts import read_card_facts
from lentigo.evaluation.card_sections import card_sections
from lentigo.evaluation.checklist import answer_checklists, checklist_table
from lentigo.evaluation.evaluate import Judgement
from lentigo.evaluation.examined_sections import examined_sections
from lentigo.evaluation.mining_gallery import mining_section, write_suspects
from lentigo.evaluation.model_card import write_model_card
from lentigo.evaluation.report import write_report
from lentigo.evaluation.run_metrics import read_object
from lentigo.evaluation.run_records import read_findings, read_judgements, read_log
from lentigo.evaluation.show_data import draw_grids
from lentigo.evaluation.thumbnails import jpeg_thumbnail
from lentigo.models.weights import origin_name
from lentigo.training.mining_table import RoundTable
from lentigo.training.run import read_catalog

JUDGED_SPLITS = ("val", "test")
GALLERY_SIZE = 16


def render_report(run: RunDir) -> Path:
    """Figures, report.html and MODEL_CARD.md from what the run holds; no network is run."""
    judgements = read_judgements(run)
    if not judgements:
        raise DataError(f"{run.path} was not judged yet", f"Run `lentigo evaluate {run.path}` first.")
    answering = answering_split(judgements)
    findings = read_findings(run, answering)  # damaged files must be known before anything is drawn
    catalog = read_catalog(run)
    log_rows = read_log(run.log)
    gallery, run_facts = _gallery(run, catalog, judgements), read_run_facts(run, catalog)
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
    facts = read_card_facts(
        run,
        judgements=judgements,
        run_facts=run_facts,
        sections=card_sections(findings),
    )
    write_model_card(run.model_card, facts)
    return write_report(
        run.report,
        title=run.path.resolve().name,
        judgements=judgements,
        run_facts=run_facts,
        log_rows=log_rows,
        figures=drawn,
        examined=examined_sections(run, judgements[answering], findings, note=note),
        mining=mining_section(run, catalog),
        checklist=checklist_table(answer_checklists(facts)),
        gallery=gallery,
        synthetic=catalog.synthetic,
        test_looks=len(run.read_looks()),
        kept_epoch=kept_epoch,
        selection_metric=metric,
    )


def answering_split(judgements: Mapping[str, Judgement]) -> str:
    """The split that report and card answer with: test where it was judged, else val."""
    return next(name for name in reversed(JUDGED_SPLITS) if name in judgements)


def _image_grids(run: RunDir, catalog: Catalog, config: Config) -> dict[str, Path]:
    """The 4x4 grids of training images as JPEG; none where the images have moved since."""
    try:
        prepared, augmented = draw_grids(catalog, config, run.figure("images").parent, "jpg", config.training.seed)
    except DataError:
        return {}
    return {"images": prepared, "images_augmented": augmented}


def read_run_facts(run: RunDir, catalog: Catalog) -> dict[str, str]:
    """What report, card and model.json say of a training, in words."""
    config, status = load_recipe(str(run.config)), run.read_status()
    environment: dict[str, Any] = {}
    if run.environment.is_file():
        environment = read_object(run.environment, "Restore it, or delete it to go without.")
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
    split = answering_split(judgements)
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
