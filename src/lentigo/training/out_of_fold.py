"""Hardness from models that never saw the image: lesion-grouped folds, each trained anew, twice or more.

The fold runs lie in the mined run's folder and are kept, so that an interrupted mining goes on where it stopped
and later rounds with the same settings use them again.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lentigo.core.config import Config
from lentigo.core.errors import ConfigError, Stopped
from lentigo.core.predictions import Predictions
from lentigo.core.recipes import parse_config
from lentigo.core.run_dir import RunDir
from lentigo.core.seeding import derive_seed
from lentigo.core.taxonomy import NUM_CLASSES
from lentigo.data.cache import open_images
from lentigo.data.catalog import Catalog
from lentigo.data.dataset import LesionDataset
from lentigo.data.duplicates import known_groups
from lentigo.data.splits import fold_assignment
from lentigo.models.checkpoint import is_model, load_checkpoint
from lentigo.models.weights import weights_path
from lentigo.training.devices import Devices, judging_device
from lentigo.training.events import Listener, Message
from lentigo.training.inference import extract_features, predict_with_features
from lentigo.training.loop import Score
from lentigo.training.mining import measure_hardness, neighbor_agreement
from lentigo.training.mining_table import Floats, RoundTable
from lentigo.training.rows import training_rows
from lentigo.training.run import resume_run, start_run
from lentigo.training.state import config_digest

_SEED_LIMIT = 2**31


def out_of_fold_hardness(
    config: Config, catalog: Catalog, folder: Path, *, where: Devices, score: Score, listen: Listener
) -> RoundTable:
    """The unweighted table of all training images of `config`, made once and kept as `folder`/KEY/hardness.csv.

    `config` is that of the first run, before any mining, with the `mining` section of the round; KEY digests all
    that decides the result.

    Raises:
        ConfigError: where the folds would start from a network that was trained on labels.
        Stopped: where a fold's training was asked to stop; the next call goes on from there.
    """
    rows = training_rows(catalog, config)
    fold_config = _fold_config(config)
    _check_start(fold_config.model.weights)
    groups = dict(zip((row.image_id for row in rows), known_groups(rows.rows), strict=True))
    target = folder / _key(fold_config, config, rows, groups) / "hardness.csv"
    if target.is_file():
        listen(Message(f"hardness of {len(rows)} images taken from {target.parent.name}"))
        return RoundTable.from_csv(target)
    tables: list[Predictions] = []
    agreements: list[Floats] = []
    for repetition in range(config.mining.fold_seeds):
        seed = derive_seed(config.training.seed, "folds", repetition) % _SEED_LIMIT
        part = fold_assignment(rows, config.mining.folds, seed, groups, allow_missing_classes=True)
        logits = np.empty((len(rows), NUM_CLASSES), np.float32)
        agreement = np.empty(len(rows))
        for number in range(config.mining.folds):
            held_out = part == number
            name = f"seed-{repetition}-fold-{number}"
            listen(Message(f"repetition {repetition + 1}, fold {number + 1} of {config.mining.folds}: {name}"))
            run = _train_fold(
                target.parent, name, fold_config, _hold_out(rows, held_out), where=where, score=score, listen=listen
            )
            logits[held_out], agreement[held_out] = _judge_fold(run, rows, held_out, config, judging_device(where))
        ids, lesions = tuple(row.image_id for row in rows), tuple(row.lesion_id for row in rows)
        tables.append(Predictions(ids, lesions, rows.labels, logits))
        agreements.append(agreement)
    return RoundTable.from_csv(measure_hardness(tables, agreements).to_csv(target))


def _fold_config(config: Config) -> Config:
    """The recipe of a fold: the run's own, from its first start, without mining, teachers, choice of epochs or rows."""
    values, mining = config.model_dump(), config.mining
    training, optimizer = values["training"], values["optimizer"]
    training |= {"epochs": mining.fold_epochs or training["epochs"], "selection_metric": "last"}
    training |= {"early_stop_epochs": 0, "time_limit_min": 0.0}
    training["small_epochs"] = min(training["small_epochs"], training["epochs"] - 1)
    optimizer["head_only_epochs"] = min(optimizer["head_only_epochs"], training["epochs"] - 1)
    if mining.fold_size_px:
        values["preprocess"]["resize_steps_px"] = (mining.fold_size_px,)
        training["small_epochs"] = 0
    values["model"]["weights"] = mining.fold_weights or config.model.weights
    # A fold's rows are chosen already, and `_hold_out` calls them all train.
    values["data"]["exclude_images"] = ()
    if "train" not in config.data.train_splits:
        values["data"]["train_splits"] = ("train",)
    values |= {"mining": {}, "distillation": {}}
    return parse_config(values, "out-of-fold recipe")


def _check_start(weights: str) -> None:
    """A network that learnt the labels of the images to hold out has seen them, whatever the folds."""
    if weights not in ("none", "imagenet") and is_model(weights_path(weights)):
        raise ConfigError(
            f"the folds' networks would start from {weights}, which was trained on labelled images: not out of fold",
            "Set mining.fold_weights to the weights from which that model itself started (imagenet, none or a file).",
        )


def _key(fold_config: Config, config: Config, rows: Catalog, groups: Mapping[str, str]) -> str:
    mining = config.mining
    facts = (config_digest(fold_config), mining.folds, mining.fold_seeds, mining.neighbors, rows.sha256)
    # The digest of the rows covers lesions alone; where these are the groups, keys stay what they always were.
    joined = [(row.image_id, groups[row.image_id]) for row in rows if groups[row.image_id] != row.lesion_id]
    text = repr((*facts, joined) if joined else facts)
    return f"out-of-fold-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _hold_out(rows: Catalog, held_out: NDArray[np.bool_]) -> Catalog:
    """The rows as a catalogue whose training split lacks those held out."""
    pairs = zip(rows.rows, held_out, strict=True)
    return replace(rows, rows=tuple(replace(row, split="" if out else "train") for row, out in pairs))


def _train_fold(
    root: Path, name: str, config: Config, catalog: Catalog, *, where: Devices, score: Score, listen: Listener
) -> RunDir:
    seed = derive_seed(config.training.seed, name) % _SEED_LIMIT
    config = config.model_copy(update={"training": config.training.model_copy(update={"seed": seed})})
    run = RunDir(root / name)
    if run.path.is_dir() and not run.config.is_file():
        shutil.rmtree(run.path)  # a process died while it made the folder
    if run.config.is_file():
        if run.read_status()["state"] == "done":
            return run
        run, outcome = resume_run(run.path, where=where, score=score, listen=listen)
    else:
        run, outcome = start_run(config, catalog, root=root, name=name, where=where, score=score, listen=listen)
    if not outcome.finished:
        raise Stopped("stopped in an out-of-fold training; it is saved", "Run the same command again to go on.")
    return run


def _judge_fold(
    run: RunDir, rows: Catalog, held_out: NDArray[np.bool_], config: Config, device: str
) -> tuple[NDArray[np.float32], Floats]:
    """Logits and neighbour agreement of the held-out rows; neighbours are the rows that the fold trained on."""
    network, spec = load_checkpoint(run.best, corrected=False)
    network = network.to(device, memory_format=torch.channels_last)
    judged, trained = (
        LesionDataset(open_images(rows.pick(wanted), spec.preprocess, config.data)) for wanted in (held_out, ~held_out)
    )
    predictions, features = predict_with_features(network, judged, device=device)
    agreement = neighbor_agreement(
        features,
        judged.images.catalog.labels,
        extract_features(network, trained, device=device),
        trained.images.catalog.labels,
        config.mining.neighbors,
    )
    return predictions.logits, agreement
