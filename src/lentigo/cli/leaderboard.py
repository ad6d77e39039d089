"""`lentigo leaderboard`: judged runs side by side, with what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lentigo.cli import console
from lentigo.cli.options import JsonFlag

if TYPE_CHECKING:
    from lentigo.evaluation.leaderboard import Leaderboards


def leaderboard(
    runs_dir: Annotated[Path, typer.Argument(help="Folder that holds the runs.")] = Path("runs"),
    split: Annotated[str, typer.Option(help="val or test; only predictions that exist are read.")] = "val",
    metric: Annotated[
        str,
        typer.Option(help="Sorts: accuracy, balanced_accuracy, macro_f1, macro_auc, malignant_auc or log_loss."),
    ] = "balanced_accuracy",
    latency: Annotated[bool, typer.Option("--latency", help="Also time every kind of network on one image.")] = False,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap resamples.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same result.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the tables to this Markdown file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List judged runs and ensembles, the best first: scores with intervals, a test against the best, and costs.

    Runs on other rows stand in tables of their own.

    `lentigo leaderboard`

    `lentigo leaderboard runs --metric malignant_auc --latency --out leaderboard.md`
    """
    console.require_training()
    from lentigo.core.files import write_text_atomic
    from lentigo.evaluation.leaderboard import leaderboard as find_leaderboards
    from lentigo.evaluation.leaderboard_page import leaderboard_markdown

    found = find_leaderboards(runs_dir, split=split, metric=metric, resamples=resamples, seed=seed, latency=latency)
    console.result(found.as_dict(), as_json, lambda: _print(found))
    if not found.tables:
        console.say(f"no run in {runs_dir} was judged on {split}; `lentigo evaluate RUN` judges one")
    if out is not None:
        console.say(f"written: {write_text_atomic(out, leaderboard_markdown(found))}")


def _print(found: Leaderboards) -> None:
    from lentigo.evaluation.leaderboard_page import cost_cells, leaderboard_notes, score_cells

    for table in found.tables:
        console.print_table(*score_cells(table), title=f"{table.split}, rows {table.rows_sha256[:12]}")
        console.print_table(*cost_cells(table))
        print("\n".join(leaderboard_notes(table)), end="\n\n")
    for name, reason in found.left_out.items():
        console.say(f"left out: {name} ({reason})")
