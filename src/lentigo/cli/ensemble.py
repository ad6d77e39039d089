"""`lentigo ensemble`: several judged runs as one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lentigo.cli import console
from lentigo.cli.options import JsonFlag

if TYPE_CHECKING:
    from lentigo.evaluation.ensemble import EnsembleResult


def ensemble(
    runs: Annotated[list[Path], typer.Argument(help="Two or more runs on the same rows, judged on the split.")],
    name: Annotated[str, typer.Option(help="Name of the new folder.")],
    split: Annotated[str, typer.Option(help="val or test; only predictions that exist are read.")] = "val",
    method: Annotated[
        Literal["probs", "logits"], typer.Option(help="What is averaged: probabilities or logits.")
    ] = "probs",
    metric: Annotated[
        str, typer.Option(help="Names the best member, on val; as for `lentigo compare`.")
    ] = "balanced_accuracy",
    runs_dir: Annotated[
        Path | None, typer.Option("--runs-dir", help="Folder of the new folder; default that of the first run.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap resamples.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same result.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Average the predictions of several runs, judge the mean and test it against the best of them; no model is run.

    `lentigo ensemble runs/a runs/b runs/c --name three`

    `lentigo ensemble runs/a runs/b runs/c --name three --split test`
    """
    from lentigo.evaluation.ensemble import build_ensemble

    root = runs_dir if runs_dir is not None else runs[0].resolve().parent
    made = build_ensemble(
        runs, root=root, name=name, split=split, method=method, metric=metric, resamples=resamples, seed=seed
    )
    console.result(made.as_dict(), as_json, lambda: _print(made))
    console.say(f"ensemble: {root / name}    next: lentigo leaderboard {root} --split {split}")


def _print(made: EnsembleResult) -> None:
    from lentigo.cli.compare import print_comparisons
    from lentigo.evaluation.leaderboard_page import score_text
    from lentigo.evaluation.resampling import METRICS, metric_text

    rows = [
        (name, *(score_text(scores[metric], metric) for metric in METRICS))
        for name, scores in (*made.members.items(), (made.name, made.ensemble))
    ]
    console.print_table(("", *map(metric_text, METRICS)), rows, title=f"{made.split}: members and their mean")
    same = "; these very images, which flatters it" if made.split == made.best_chosen_on else ""
    print(f"Best member by {metric_text(made.metric)} on {made.best_chosen_on}{same}: {made.best}\n")
    print_comparisons(made.against_best)
