"""`lentigo train`: one run from data and a recipe, or an interrupted one continued."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lentigo.cli import console
from lentigo.cli.options import Accelerator, JsonFlag, Overrides, RunsDir, parse_minutes
from lentigo.core.errors import ConfigError, ExitCode

ACCELERATOR_PANEL = "Devices"


def train(
    data: Annotated[Path | None, typer.Argument(help="CSV, folder, .npz or Parquet pack with splits.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe name or TOML file; see `lentigo config`. Default quick.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="RUN/config.toml of a run to repeat.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="imagenet, lentigo (the shipped model), none, or a .safetensors or .pth file.")
    ] = None,
    overrides: Overrides = None,
    images: Annotated[Path | None, typer.Option(help="Image folder of a CSV that has none beside it.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run folder.")] = None,
    runs_dir: RunsDir = Path("runs"),
    resume: Annotated[Path | None, typer.Option(help="Continue this interrupted run.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print plan, memory and ETA; start no run.")] = False,
    time_limit: Annotated[str | None, typer.Option(help="Stop after 90s, 30m, 1h30m and keep the best.")] = None,
    accelerator: Annotated[
        Accelerator, typer.Option(help="Where to train.", rich_help_panel=ACCELERATOR_PANEL)
    ] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Per node.", rich_help_panel=ACCELERATOR_PANEL)] = 1,
    num_nodes: Annotated[int, typer.Option(min=1, help="Machines.", rich_help_panel=ACCELERATOR_PANEL)] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Train a network on the train split and choose its epoch on val; the test split is never opened.

    `lentigo train split.csv --recipe quick`

    `lentigo train ham10000.csv --recipe paper-v2 --weights mobilenet_v2.safetensors --set training.epochs=10`

    `lentigo train --resume runs/20260101-1200-mobilenet_v2-7f3a`
    """
    console.require_training()
    from lentigo.core.recipes import load_recipe
    from lentigo.core.run_dir import RunDir
    from lentigo.data.sources import load_catalog
    from lentigo.evaluation.run_evaluation import epoch_scores
    from lentigo.training.devices import Devices
    from lentigo.training.plan import plan_run
    from lentigo.training.run import read_catalog, resume_run, start_run

    where = Devices(accelerator, devices, num_nodes)
    if resume is not None:
        others = (data, recipe, config, weights, overrides, images, seed, name, time_limit)
        if dry_run or any(other is not None for other in others):
            raise ConfigError(
                "--resume continues a run exactly as it was; it takes no data, recipe, override or limit",
                "Drop the other options, or start a new run.",
            )
        with console.training_listener() as listen:
            run, outcome = resume_run(resume, where=where, score=epoch_scores, listen=listen)
        finish_training(run, outcome, as_json)
        return
    if data is None and (config is None or not config.with_name("catalog.csv").is_file()):
        raise ConfigError("expected DATA (a CSV, folder, .npz or Parquet pack); found none", "lentigo train DATA")
    if recipe is not None and config is not None:
        raise ConfigError("expected --recipe or --config; found both", "Pass one of them.")
    changes = list(overrides or [])
    changes += [f"model.weights={weights}"] if weights is not None else []
    changes += [f"training.seed={seed}"] if seed is not None else []
    changes += [f"training.time_limit_min={parse_minutes(time_limit)}"] if time_limit is not None else []
    resolved = load_recipe(str(config) if config is not None else recipe or "quick", changes)
    # Without data, --config repeats a run on that run's own rows.
    if data is not None:
        catalog = load_catalog(data, images=images)
    elif config is not None:
        catalog = read_catalog(RunDir.open(config.parent))
    with console.training_listener() as listen:
        if dry_run:
            plan = plan_run(resolved, catalog, where=where, score=epoch_scores, listen=listen)
        else:
            run, outcome = start_run(
                resolved, catalog, root=runs_dir, name=name, where=where, score=epoch_scores, listen=listen
            )
    if dry_run:
        if plan.rank:
            return
        from dataclasses import asdict

        facts = {name: value for name, value in asdict(plan).items() if name != "rank"}
        console.result(facts, as_json, lambda: console.print_table(("plan", "value"), facts.items()))
        return
    finish_training(run, outcome, as_json)


def finish_training(run: Any, outcome: Any, as_json: bool) -> None:
    """Say how it ended; of several processes only the first speaks."""
    if outcome.rank:
        raise typer.Exit(ExitCode.OK if outcome.finished else ExitCode.INTERRUPTED)
    if as_json:
        console.print_json({"run": str(run.path), **run.read_status()})
    if not outcome.finished:
        console.say(f"stopped; saved. Continue: lentigo train --resume {run.path}")
        raise typer.Exit(ExitCode.INTERRUPTED)
    score = "" if outcome.best_score is None else f" ({outcome.best_score:.4f})"
    console.say(f"finished ({outcome.finished}), best epoch {outcome.best_epoch + 1}{score}, {outcome.elapsed_s:.0f} s")
    console.say(f"run: {run.path}    next: lentigo evaluate {run.path} --split val")
