"""The `lentigo` command: parse, build the configuration, call one function, print a table or JSON.

Heavy imports live inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from lentigo import __version__
from lentigo.cli import console
from lentigo.cli.compare import compare
from lentigo.cli.data import data_app
from lentigo.cli.distill import distill
from lentigo.cli.ensemble import ensemble
from lentigo.cli.explain import explain
from lentigo.cli.leaderboard import leaderboard
from lentigo.cli.mine import mine
from lentigo.cli.options import parse_minutes
from lentigo.cli.score import score
from lentigo.cli.study import study
from lentigo.core.errors import ConfigError, DataError, ExitCode, LentigoError

EPILOG = "Exit codes: 0 ok, 1 bug, 2 usage, 3 data, 4 a quality gate failed, 130 interrupted. Research use only."

app = typer.Typer(
    help="Small, honest skin-lesion classifiers. Research software, not a medical device.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(data_app, name="data")
app.command()(mine)
app.command()(study)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Folder that holds the runs.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key; repeatable.")
]
ACCELERATOR_PANEL = "Devices"


def _show_version(value: bool) -> None:
    if value:
        print(f"lentigo {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def train(
    data: Annotated[Path | None, typer.Argument(help="CSV, folder, .npz or Parquet pack with splits.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe name or TOML file; see `lentigo config`. Default quick.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="RUN/config.toml of a run to repeat.")] = None,
    weights: Annotated[str | None, typer.Option(help="imagenet, none, or a .safetensors or .pth file.")] = None,
    overrides: Overrides = None,
    images: Annotated[Path | None, typer.Option(help="Image folder of a CSV that has none beside it.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run folder.")] = None,
    runs_dir: RunsDir = Path("runs"),
    resume: Annotated[Path | None, typer.Option(help="Continue this interrupted run.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print plan, memory and ETA; start no run.")] = False,
    time_limit: Annotated[str | None, typer.Option(help="Stop after 90s, 30m, 1h30m and keep the best.")] = None,
    accelerator: Annotated[
        str, typer.Option(help="auto, cpu, cuda or mps.", rich_help_panel=ACCELERATOR_PANEL)
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
    from lentigo.core.config import load_recipe
    from lentigo.core.run_dir import RunDir
    from lentigo.data.sources import load_catalog
    from lentigo.evaluation.run_evaluation import epoch_scores
    from lentigo.training.run import Devices, plan_run, read_catalog, resume_run, start_run

    if accelerator not in ("auto", "cpu", "cuda", "mps"):
        raise ConfigError(f"--accelerator takes auto, cpu, cuda or mps; found {accelerator!r}", "Pass one of these.")
    where = Devices(accelerator, devices, num_nodes)  # type: ignore[arg-type]
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


app.command()(distill)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    split: Annotated[str, typer.Option(help="val or test; each look at test is counted.")] = "val",
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap resamples.")] = 2000,
    corruptions: Annotated[
        bool, typer.Option("--corruptions", help="Also judge val images with hair, blur, other light and more.")
    ] = False,
    corrupted_images: Annotated[
        int, typer.Option(min=1, help="Val images that are corrupted, of every class; each is judged 91 times.")
    ] = 300,
    outliers: Annotated[
        bool, typer.Option("--outliers", help="Also fit a gate for images of other kinds on val, and judge it.")
    ] = False,
    photos: Annotated[
        list[Path] | None, typer.Option(help="With --outliers: folder of images of another kind; repeatable.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Judge a run on a split: predictions, metrics with intervals, calibration, figures, report.html, MODEL_CARD.md.

    `lentigo evaluate runs/my-run`

    `lentigo evaluate runs/my-run --corruptions`

    `lentigo evaluate runs/my-run --outliers --photos pictures`

    `lentigo evaluate runs/my-run --split test --json`
    """
    console.require_training()
    from lentigo.core.run_dir import RunDir
    from lentigo.evaluation.evaluate import classification_report
    from lentigo.evaluation.run_evaluation import evaluate_run, judge_corruptions, judge_outliers

    folder = RunDir.open(run)
    if corruptions and split != "val":
        raise ConfigError(
            f"--corruptions judges val images; found --split {split}",
            "Judge test without it: scores on corrupted images serve to choose models.",
        )
    if outliers and split != "val":
        raise ConfigError(
            f"--outliers judges a gate on val images; found --split {split}",
            "Judge test without it: the gate is fitted on val.",
        )
    if photos and not outliers:
        raise ConfigError("--photos takes images to judge the gate on; found no --outliers", "Add --outliers.")
    with console.counter("judging") as progress:
        judgement = evaluate_run(folder, split, resamples=resamples, progress=progress)
    facts = judgement.as_dict()
    if corruptions:
        with console.counter("judging corrupted images") as progress:
            robustness = judge_corruptions(folder, max_images=corrupted_images, resamples=resamples, progress=progress)
        facts |= {"robustness": robustness.as_dict()}
    if outliers:
        with console.counter("judging images of other kinds") as progress:
            gate = judge_outliers(folder, photos or (), resamples=resamples, progress=progress)
        facts |= {"outliers": gate.as_dict()}
    if as_json:
        console.print_json(facts)
    else:
        console.print_estimates(judgement)
        print(classification_report(judgement))
    console.say(f"report: {folder.report}")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run folder that was evaluated.")],
    summary: Annotated[
        Path | None,
        typer.Option(help="Also write settings, log and metrics as JSON, without images or paths."),
    ] = None,
    track: Annotated[str, typer.Option(help="Name of the data in the summary, such as rgb-3k.")] = "",
) -> None:
    """Write report.html and MODEL_CARD.md again from what the run holds; no model is run, no look at test is taken.

    `lentigo report runs/my-run`

    `lentigo report runs/my-run --summary results/my-run.json --track rgb-3k`
    """
    console.require_training()
    from lentigo.core.run_dir import RunDir
    from lentigo.evaluation.run_evaluation import write_report_again
    from lentigo.evaluation.summary import write_summary

    folder = RunDir.open(run)
    write_report_again(folder)
    if summary is not None:
        console.say(f"summary: {write_summary(folder, summary, track)}")
    console.say(f"report: {folder.report}")


for command in (compare, leaderboard, ensemble, explain, score):
    app.command()(command)


@app.command()
def runs(runs_dir: RunsDir = Path("runs"), as_json: JsonFlag = False) -> None:
    """List the runs: state, epoch, best validation score.

    `lentigo runs`
    """
    from lentigo.core.run_dir import list_runs

    found = [{"run": str(run.path), **run.read_status()} for run in list_runs(runs_dir)]

    def lines() -> None:
        if not found:
            console.say(f"no runs in {runs_dir}; start one with `lentigo train` or `lentigo demo`")
            return
        keys = ("run", "state", "epoch", "epochs", "best_epoch", "best_score", "synthetic", "message")
        console.print_table(keys, [[console.cell(facts.get(key)) for key in keys] for facts in found])

    console.result({"runs": found}, as_json, lines)


@app.command("config")
def show_config(
    recipe: Annotated[str | None, typer.Argument(help="Recipe name or file to print, resolved.")] = None,
    overrides: Overrides = None,
    keys: Annotated[bool, typer.Option("--keys", help="List every key with type, default and meaning.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the recipes, print one resolved, or list every key.

    `lentigo config`

    `lentigo config quick --set training.epochs=4`

    `lentigo config --keys`
    """
    from lentigo.core.config import all_keys, load_recipe, recipe_names

    if keys:
        table = all_keys()
        console.result(
            {key: dict(zip(("type", "default", "meaning"), facts, strict=True)) for key, facts in table.items()},
            as_json,
            lambda: console.print_table(("key", "type", "default", "meaning"), [(k, *v) for k, v in table.items()]),
        )
    elif recipe is not None:
        config = load_recipe(recipe, overrides or [])
        console.result(config.model_dump(mode="json"), as_json, lambda: print(config.to_toml(), end=""))
    else:
        about = [load_recipe(name).about for name in recipe_names()]
        console.result(
            {"recipes": [facts.model_dump() for facts in about]},
            as_json,
            lambda: console.print_table(
                ("recipe", "source", "cost", "expected"),
                [(a.name, a.source, a.cost, a.expected) for a in about],
            ),
        )


@app.command()
def doctor(as_json: JsonFlag = False) -> None:
    """Check the installation: versions, extras, device, memory, cache.

    `lentigo doctor`
    """
    from lentigo.doctor import examine

    findings = examine()
    console.result(
        {"checks": [finding._asdict() for finding in findings]},
        as_json,
        lambda: console.print_table(
            ("check", "state", "found"), [(f.check, "ok" if f.ok else "missing", f.found) for f in findings]
        ),
    )


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where the drawn images and the run go.")] = Path("demo"),
    images: Annotated[int, typer.Option(min=140, help="Images drawn.")] = 900,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Of drawing, split and training.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """The whole way once on drawn images: draw, split, train, judge, report. Offline, a few minutes.

    `lentigo demo`
    """
    console.require_training()
    from lentigo.demo import run_demo

    with console.training_listener() as listen:
        outcome = run_demo(folder, num_images=images, epochs=epochs, seed=seed, listen=listen)
    if as_json:
        console.print_json(outcome.as_dict())
    else:
        console.print_estimates(outcome.judgement)
    console.say(f"{outcome.elapsed_s:.0f} s    report: {outcome.report}")


def _fail(error: LentigoError) -> NoReturn:
    """One message on stderr, the same as JSON on stdout where that was asked for, and the exit code."""
    console.say(f"error: {error}")
    if "--json" in sys.argv:
        console.print_json({"error": error.message, "remedy": error.remedy, "exit_code": int(error.exit_code)})
    sys.exit(error.exit_code)


def main() -> None:
    """Entry point: errors become one message on stderr and a documented exit code."""
    try:
        app(prog_name="lentigo")
    except LentigoError as error:
        _fail(error)
    except SystemExit as end:
        if isinstance(getattr(end.__context__, "__cause__", None), KeyboardInterrupt):
            console.say("interrupted")
            sys.exit(ExitCode.INTERRUPTED)
        # Typer answers a closed pipe (`lentigo runs | head`) with 1, which here means a bug.
        sys.exit(ExitCode.OK if isinstance(end.__context__, BrokenPipeError) else end.code)
    except OSError as error:
        name = error.filename2 or error.filename or ""
        _fail(
            DataError(
                f"cannot read or write {name}: {error.strerror or error}",
                "Check the path, its permissions and the free space.",
            )
        )
    except Exception as error:
        if (
            isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        ):  # torch's, without importing it
            _fail(
                ConfigError(
                    f"out of memory: {str(error).partition('.')[0]}",
                    "Lower training.batch_size or data.cache_limit_mb; `lentigo train --dry-run` shows what is needed.",
                )
            )
        traceback.print_exc()
        console.say("This is a bug in Lentigo; please report it with the lines above.")
        sys.exit(ExitCode.BUG)
