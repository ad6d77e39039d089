"""`lentigo mine`: one more round of training on weighted images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lentigo.cli import console
from lentigo.cli.options import Accelerator, JsonFlag

Control = Literal["continuation", "random", "shuffled", "hard_only"]


def mine(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    recipe: Annotated[str, typer.Option(help="mine, paper-v2-hard, or a TOML file with a mining section.")] = "mine",
    control: Annotated[
        Control | None,
        typer.Option(help="The same round without its point: all images alike, random, shuffled or hard ones alone."),
    ] = None,
    hardness: Annotated[
        Path | None, typer.Option(help="hardness.csv of an earlier mining on the same rows, instead of new folds.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key; repeatable.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the round; default that of RUN.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the new run folder.")] = None,
    runs_dir: Annotated[Path | None, typer.Option(help="Folder of the new run; default that of RUN.")] = None,
    accelerator: Annotated[Accelerator, typer.Option(help="Where to train.")] = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Continue a finished run for one round of hard mining, in a run of its own; only training images are scored.

    `lentigo mine runs/my-run`

    `lentigo mine runs/my-run --recipe paper-v2-hard`

    `lentigo mine runs/my-run --control continuation`
    """
    console.require_training()
    from lentigo.cli.train import finish_training
    from lentigo.core.run_dir import RunDir
    from lentigo.evaluation.run_evaluation import epoch_scores
    from lentigo.training.devices import Devices
    from lentigo.training.mining_run import mine_run

    parent = RunDir.open(run)
    changes = [*(overrides or []), *([f"training.seed={seed}"] if seed is not None else [])]
    with console.training_listener() as listen:
        mined, outcome = mine_run(
            parent,
            recipe,
            control=control,
            overrides=changes,
            hardness=hardness,
            root=runs_dir if runs_dir is not None else parent.path.parent,
            name=name,
            where=Devices(accelerator),
            score=epoch_scores,
            listen=listen,
        )
    finish_training(mined, outcome, as_json)
