"""`lentigo explain`: where a network looks, and whether its maps say anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lentigo.cli import console
from lentigo.cli.options import JsonFlag

if TYPE_CHECKING:
    from lentigo.evaluation.explain_run import Explanations
    from lentigo.evaluation.metrics import Estimate

_CHECKS = {
    "deletion": "area while the salient parts go first",
    "deletion_random": "area in random order",
    "deletion_centre": "area from the centre outwards",
    "beats_random": "random minus salient",
    "beats_centre": "centre minus salient",
    "similarity_randomised": "similarity to the map of random weights",
    "similarity_mirrored": "similarity to the map of the mirrored image",
}


def explain(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    images: Annotated[
        list[Path] | None, typer.Argument(help="Image files; without them errors and right answers of the split.")
    ] = None,
    split: Annotated[Literal["val", "test"], typer.Option(help="A split that was judged before.")] = "val",
    count: Annotated[int, typer.Option(min=1, max=200, help="Sure errors, and as many frequent confusions.")] = 8,
    code: Annotated[
        str | None, typer.Option("--class", help="The class whose evidence is drawn, such as mel; default the answer.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Draw Grad-CAM overlays of a run's images and check them: deletion, randomised weights.

    `lentigo explain runs/my-run`

    `lentigo explain runs/my-run --class mel --count 4`

    `lentigo explain runs/my-run photo.jpg other.jpg --json`
    """
    console.require_training()
    from lentigo.core.run_dir import RunDir
    from lentigo.evaluation.explain_run import explain_run

    folder = RunDir.open(run)
    with console.counter("checking") as progress:
        found = explain_run(folder, images or (), split=split, count=count, code=code, progress=progress)
    console.result(found.as_dict(), as_json, lambda: _print(found))
    if found.synthetic:
        console.say_synthetic()
    console.say(f"overlays: {folder.explanations}    next: lentigo report {folder.path}")


def _print(found: Explanations) -> None:
    rows = [
        (one.file, one.why, one.truth or "", one.answer, f"{one.probability:.2f}", f"{one.shown_probability:.2f}")
        for one in found.images
    ]
    title = "given files" if found.split is None else f"{found.split}: surest errors, confusions, usual right answers"
    console.print_table(("overlay", "why", "truth", "answer", "p", "p of the class shown"), rows, title=title)
    check = found.check
    console.print_table(
        ("check", "mean", "95% interval", "n"),
        [(text, *_estimate(getattr(check, name))) for name, text in _CHECKS.items()],
        title=f"check on these {check.n_images} images of {check.n_lesions} lesions",
    )
    for finding in check.findings:
        print(finding)


def _estimate(found: Estimate) -> tuple[str, str, int]:
    interval = "" if found.ci_low is None else f"{console.cell(found.ci_low)} to {console.cell(found.ci_high)}"
    return console.cell(found.value), interval, found.n
