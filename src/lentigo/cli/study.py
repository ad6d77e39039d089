"""`lentigo study`: a grid of recipes x seeds from one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lentigo.cli import console
from lentigo.cli.options import Accelerator, JsonFlag, parse_minutes
from lentigo.core.errors import CheckpointError, ExitCode

if TYPE_CHECKING:
    from lentigo.evaluation.study_plan import Planned
    from lentigo.evaluation.study_run import StudyOutcome


def study(
    file: Annotated[Path, typer.Argument(help="The study, a TOML file such as studies/report-gray.toml.")],
    data: Annotated[Path, typer.Option(help="CSV, folder, .npz or Parquet pack with splits.")],
    images: Annotated[Path | None, typer.Option(help="Image folder of a CSV that has none beside it.")] = None,
    weights_dir: Annotated[Path | None, typer.Option(help="Folder of the starting weights that rows name.")] = None,
    runs_dir: Annotated[Path, typer.Option("--runs-dir", help="Folder that holds the runs.")] = Path("runs"),
    results: Annotated[Path, typer.Option(help="Folder of the result files, to be committed.")] = Path("results"),
    only: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Run this row and what it needs; repeatable.")
    ] = None,
    time_limit: Annotated[str | None, typer.Option(help="Begin no further training after 90s, 30m, 2h.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what is done and what would run.")] = False,
    accelerator: Annotated[Accelerator, typer.Option(help="Where to train.", rich_help_panel="Devices")] = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Train and judge a grid of recipes x seeds; run it again to go on where it stopped.

    Every finished training leaves STUDY-ROW-sSEED.json and its predictions in --results; what is there is not repeated.

    `lentigo study studies/report-gray.toml --data ham10000.csv --weights-dir weights --dry-run`

    `lentigo study studies/report-gray.toml --data ham10000.csv --weights-dir weights --time-limit 2h`

    `lentigo study studies/mining.toml --data ham10000.csv --weights-dir weights --only parent --only ours`
    """
    console.require_training()
    from lentigo.data.sources import load_catalog
    from lentigo.evaluation.study import load_study
    from lentigo.evaluation.study_plan import Folders, check_weights, plan_study, trainings
    from lentigo.evaluation.study_run import StudyRunner, check_time_limit
    from lentigo.training.devices import Devices

    limit_min = 0.0 if time_limit is None else check_time_limit(parse_minutes(time_limit))
    grid, rows = load_study(file), tuple(only or ())
    grid.items(rows)  # a wrong --only must be known before the data is read
    catalog = load_catalog(data, images=images)
    folders = Folders(runs_dir, results, weights_dir)
    if dry_run:
        planned = plan_study(grid, catalog, folders, rows)
        _show_plan(planned, as_json)
        try:
            check_weights(trainings(grid, planned, folders), folders)
        except CheckpointError as error:
            console.say(f"{error.message}. {error.remedy}")
        return
    where = Devices(accelerator)
    with console.training_listener() as listen:
        outcome = StudyRunner(grid, catalog, folders, where, listen).run(rows, limit_min)
    _finish(outcome, file, as_json)


def _show_plan(planned: list[Planned], as_json: bool) -> None:
    from lentigo.evaluation.study_run import plan_facts

    facts = plan_facts(planned)
    keys = ("row", "seed", "state", "detail")
    console.result(
        {"plan": facts},
        as_json,
        lambda: console.print_table(keys, [[console.cell(fact[key]) for key in keys] for fact in facts]),
    )
    done = sum(plan.state == "done" for plan in planned)
    console.say(f"{done} of {len(planned)} trainings done")


def _finish(outcome: StudyOutcome, file: Path, as_json: bool) -> None:
    """Say what was written, what is left and how to go on."""
    if as_json:
        console.print_json(
            {
                "written": [str(path) for path in outcome.written],
                "left": outcome.left,
                "interrupted": outcome.interrupted or None,
            }
        )
    if outcome.interrupted:
        console.say(f"stopped in {outcome.interrupted}; saved. Continue with the same command.")
        raise typer.Exit(ExitCode.INTERRUPTED)
    if outcome.left:
        console.say(f"time limit: {len(outcome.left)} trainings left: {', '.join(outcome.left)}")
    names = f"written: {', '.join(path.name for path in outcome.written)}" if outcome.written else "all was done"
    console.say(f"{names}    next: {'the same command' if outcome.left else f'commit the results of {file}'}")
