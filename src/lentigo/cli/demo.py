"""`lentigo demo`: the whole way once, on drawn images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lentigo.cli import console
from lentigo.cli.options import JsonFlag


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
