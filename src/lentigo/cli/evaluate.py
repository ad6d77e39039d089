"""`lentigo evaluate` and `lentigo report`: judge a run, or write again what is known of it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from lentigo.cli import console
from lentigo.cli.options import JsonFlag
from lentigo.core.errors import ConfigError


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
    with warnings.catch_warnings(record=True) as caught, console.counter("judging") as progress:
        judgement = evaluate_run(folder, split, resamples=resamples, progress=progress)
    for one in caught:
        console.say(f"warning: {one.message}")
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
