"""A round of hard mining as a run of its own, which continues a finished one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lentigo.core.config import Config
from lentigo.core.errors import CheckpointError, ConfigError
from lentigo.core.recipes import load_recipe, merge_recipe, parse_config
from lentigo.core.run_dir import RunDir, round_number
from lentigo.data.cache import open_images
from lentigo.data.catalog import Catalog
from lentigo.data.dataset import LesionDataset
from lentigo.models.checkpoint import load_checkpoint
from lentigo.training.devices import Devices, judging_device
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
from lentigo.training.run import read_catalog, start_run


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
    are scored. Out-of-fold models are kept in the folder of the first run, the one before any mining. An interrupted
    round is resumed as any run.

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
    table = _score(parent, config, catalog, hardness, where=where, score=score, listen=listen)
    table = table.ordered(training_rows(catalog, config))
    if config.mining.method == "report":
        draws = int(hard_by_answer(table, config.mining).sum())
        chosen = choose_hard_only(table, config.mining, config.training.seed)
    else:
        table = screen_noise(table, config.mining)
        draws = len(table)
        chosen = choose_boost(table, config.mining, config.training.sampler, config.training.seed)
    config = _with_draws(config, draws)
    listen(Message(describe_round(chosen, config)))
    number = 1 + max((round_number(path) for path in parent.mining_rounds), default=0)
    return start_run(
        config,
        catalog,
        root=root,
        name=name,
        where=where,
        score=score,
        listen=listen,
        table=chosen,
        number=number,
    )


def round_config(parent: RunDir, recipe: str, overrides: Sequence[str]) -> Config:
    """The settings of a round that continues `parent` from its chosen weights.

    Where the recipe distils and names no teachers, the parent is the teacher.
    """
    values = merge_round(load_recipe(str(parent.config)), recipe, overrides).model_dump()
    best, distillation = str(parent.best.resolve()), values["distillation"]
    values["model"]["weights"] = best
    values["mining"]["parent"] = parent.path.resolve().name
    if distillation["weight"] and not distillation["teachers"]:
        distillation["teachers"] = (best,)
    return parse_config(values, f"a round of {recipe}")


def merge_round(before: Config, recipe: str, overrides: Sequence[str]) -> Config:
    """The settings of a run with those that a mining recipe states in their place.

    What belongs to the run's own course does not pass on: its round, its teachers, its phases at a smaller size or
    of the head alone, its limits on time and patience.

    Raises:
        ConfigError: for a recipe without mining, or one that changes network, preprocessing or training rows, or
            the logit adjustment of a run that is to be its teacher.
    """
    values = before.model_dump() | {"mining": {}, "distillation": {}}
    values["training"] |= {"small_epochs": 0, "time_limit_min": 0.0, "early_stop_epochs": 0}
    values["optimizer"] |= {"head_only_epochs": 0}
    config = merge_recipe(parse_config(values, "the run"), recipe, overrides)
    if config.mining.method == "none":
        raise ConfigError(
            f"{recipe} is no mining recipe: mining.method is none",
            "Take mine, paper-v2-hard or an own one that sets mining.method.",
        )
    kept = {
        "architecture": (config.model.architecture, before.model.architecture),
        "preprocessing": (config.preprocess, before.preprocess),
        "training rows": (
            (config.data.train_splits, config.data.include_repeats, config.data.exclude_images),
            (before.data.train_splits, before.data.include_repeats, before.data.exclude_images),
        ),
    }
    changed = [name for name, (now, then) in kept.items() if now != then]
    if changed:
        raise ConfigError(
            f"a round of mining keeps the architecture, the preprocessing and the training rows of the run that it "
            f"continues; {recipe} changes the {' and the '.join(changed)}",
            "Drop these settings.",
        )
    anchored = config.distillation.weight > 0 and not config.distillation.teachers
    if anchored and _adjustment(config) != _adjustment(before):
        raise ConfigError(
            f"the run, which is to be the round's teacher, has a logit adjustment of {_adjustment(before):g} and the "
            f"round one of {_adjustment(config):g}: one puts back the class prior that the other takes off",
            "Keep loss.kind and loss.logit_adjustment of the run, or pass --set distillation.weight=0.",
        )
    return config


def _adjustment(config: Config) -> float:
    """How much of the log class prior the loss takes off the logits."""
    return config.loss.logit_adjustment if config.loss.kind == "logit_adjusted" else 0.0


def first_run(run: RunDir) -> RunDir:
    """The run before any mining, found beside it by name; CheckpointError where it is gone."""
    while (config := load_recipe(str(run.config))).mining.method != "none":
        before = RunDir(run.path.resolve().parent / config.mining.parent)
        if not before.config.is_file():
            raise CheckpointError(
                f"{run.path} continues {config.mining.parent}, which is not beside it; folds are trained as that was",
                "Put it back, or pass --hardness with the hardness.csv of an earlier mining.",
            )
        run = before
    return run


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
        device = judging_device(where)
        network = network.to(device, memory_format=torch.channels_last)
        dataset = LesionDataset(open_images(rows, spec.preprocess, config.data))
        return measure_hardness([predict_logits(network, dataset, device=device)])
    first = first_run(parent)
    before = load_recipe(str(first.config)).model_copy(update={"mining": config.mining})
    return out_of_fold_hardness(before, catalog, first.mining, where=where, score=score, listen=listen)


def _with_draws(config: Config, hard: int) -> Config:
    """Draws of an epoch, the same for a method and all its controls: they are compared at equal steps."""
    if config.mining.draws_per_epoch:
        return config
    return config.model_copy(update={"mining": config.mining.model_copy(update={"draws_per_epoch": hard})})
