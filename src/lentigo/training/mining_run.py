"""A round of hard mining as a run of its own, which continues a finished one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lentigo.core.config import Config, load_recipe, merge_recipe
from lentigo.core.errors import CheckpointError, ConfigError
from lentigo.core.run_dir import RunDir
from lentigo.data.cache import open_images
from lentigo.data.catalog import Catalog
from lentigo.data.dataset import LesionDataset
from lentigo.models.checkpoint import load_checkpoint
from lentigo.training.events import Listener, Message
from lentigo.training.inference import predict_logits
from lentigo.training.loop import Outcome, Score
from lentigo.training.mining import (
    choose_boost,
    choose_hard_only,
    hard_by_answer,
    measure_hardness,
    screen_noise,
)
from lentigo.training.mining_table import RoundTable
from lentigo.training.out_of_fold import out_of_fold_hardness
from lentigo.training.rows import training_rows
from lentigo.training.run import Devices, read_catalog, start_run


def mine_run(
    parent: RunDir,
    recipe: str,
    *,
    control: str | None,
    overrides: Sequence[str],
    hardness: Path | None,
    root: Path,
    name: str | None,
    where: Devices,
    score: Score,
    listen: Listener,
) -> tuple[RunDir, Outcome]:
    """Continue `parent` for one round on weighted training images, in a new run below `root`.

    The round's settings are the parent's, with those that `recipe` and `overrides` state in their place. `control`
    replaces the choice of images; `hardness` is a hardness.csv to use instead of training folds. Only training rows
    are scored. Out-of-fold models are kept in the parent's folder. An interrupted round is resumed as any run.

    Raises:
        CheckpointError: where the parent has not finished.
        ConfigError: where the recipe is no mining recipe, or a setting is wrong.
        DataError: where no image is hard, or `hardness` is of other images.
        Stopped: where the training of folds was asked to stop.
    """
    state = parent.read_status()["state"]
    if state != "done" or not parent.best.is_file():
        raise CheckpointError(
            f"{parent.path} is not finished (state: {state}); only a finished run is mined",
            f"Finish it first: lentigo train --resume {parent.path}",
        )
    if name is not None:
        RunDir.check_name(root, name)
    config = round_config(parent, recipe, [*overrides, *([f"mining.control={control}"] if control else [])])
    catalog = read_catalog(parent)
    rows = training_rows(catalog, config)
    table = _score(parent, config, catalog, hardness, where=where, score=score, listen=listen)
    table.factors(rows)
    if config.mining.method == "report":
        draws = int(hard_by_answer(table, config.mining).sum())
        chosen = choose_hard_only(table, config.mining, config.training.seed)
    else:
        table = screen_noise(table, config.mining)
        draws = len(table)
        chosen = choose_boost(table, config.mining, config.training.sampler, config.training.seed)
    config = _with_draws(config, draws)
    listen(Message(describe_round(chosen, config)))
    number = len(parent.mining_rounds) + 1
    return start_run(
        config,
        catalog,
        root=root,
        name=name,
        where=where,
        score=score,
        listen=listen,
        table=chosen,
        round_number=number,
    )


def round_config(parent: RunDir, recipe: str, overrides: Sequence[str]) -> Config:
    """The parent's settings with the recipe's in their place, starting from the parent's chosen weights."""
    before = load_recipe(str(parent.config))
    config = merge_recipe(before, recipe, overrides)
    if config.mining.method == "none":
        raise ConfigError(
            f"{recipe} is no mining recipe: mining.method is none",
            "Pass --recipe mine or paper-v2-hard, or set mining.method.",
        )
    if config.model.architecture != before.model.architecture or config.preprocess != before.preprocess:
        raise ConfigError(
            "a round of mining keeps the architecture and the preprocessing of the run that it continues",
            "Drop these settings.",
        )
    best = str(parent.best.resolve())
    mining = {"parent": parent.path.resolve().name}
    mining["fold_weights"] = config.mining.fold_weights or before.mining.fold_weights or before.model.weights
    follows = config.distillation.weight > 0 and not config.distillation.teachers
    return config.model_copy(
        update={
            "model": config.model.model_copy(update={"weights": best}),
            "mining": config.mining.model_copy(update=mining),
            "distillation": config.distillation.model_copy(update={"teachers": (best,)} if follows else {}),
        }
    )


def describe_round(table: RoundTable, config: Config) -> str:
    """One line on what the round draws."""
    left_out, boosted = int((table.weight == 0).sum()), int((table.weight > 1).sum())
    control = f", control {config.mining.control}" if config.mining.control != "none" else ""
    return (
        f"mining ({config.mining.method}{control}): {len(table)} images scored, {len(table) - left_out} drawn, "
        f"{boosted} boosted, {int(table.suspect.sum())} suspect; {config.mining.draws_per_epoch} draws an epoch"
    )


def _score(
    parent: RunDir,
    config: Config,
    catalog: Catalog,
    hardness: Path | None,
    *,
    where: Devices,
    score: Score,
    listen: Listener,
) -> RoundTable:
    if hardness is not None:
        return RoundTable.from_csv(hardness)
    rows = training_rows(catalog, config)
    if config.mining.method == "report" or config.mining.control == "continuation":
        listen(Message("scoring the training images with the trained model"))
        network, spec = load_checkpoint(parent.best)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        network = network.to(device, memory_format=torch.channels_last)
        dataset = LesionDataset(open_images(rows, spec.preprocess, config.data))
        return measure_hardness([predict_logits(network, dataset, device=device)])
    before = load_recipe(str(parent.config)).model_copy(update={"mining": config.mining})
    return out_of_fold_hardness(before, catalog, parent.mining, where=where, score=score, listen=listen)


def _with_draws(config: Config, hard: int) -> Config:
    """Draws of an epoch, the same for a method and all its controls: they are compared at equal steps."""
    if config.mining.draws_per_epoch:
        return config
    return config.model_copy(update={"mining": config.mining.model_copy(update={"draws_per_epoch": hard})})
