"""`lentigo export`: a run's weights for use without torch, with the proof that they are the same model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lentigo.cli import console
from lentigo.cli.options import JsonFlag

if TYPE_CHECKING:
    from collections.abc import Callable

    from lentigo.deploy.export import Export


def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    to: Annotated[
        str,
        typer.Option(
            help="onnx (float), fp16 (half the size, as fast) and int8, with commas; all are judged on val. For phones "
            "also executorch and coreml."
        ),
    ] = "onnx,int8",
    out: Annotated[Path | None, typer.Option(help="Folder to write; default RUN/export.")] = None,
    checkpoint: Annotated[
        Literal["best", "last"], typer.Option(help="The chosen weights or those of the last epoch.")
    ] = "best",
    name: Annotated[str, typer.Option(help="What the model is called; default as the run.")] = "",
    with_start: Annotated[
        bool, typer.Option("--with-start", help="Add the checkpoint in half precision, to train from, and its terms.")
    ] = False,
    licence: Annotated[str, typer.Option(help="Terms of the weights, instead of what the program knows.")] = "",
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap resamples.")] = 2000,
    force: Annotated[bool, typer.Option("--force", help="Replace an older export.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a run's model as ONNX, checked on val; a failed gate writes nothing and exits with 4.

    `lentigo export runs/my-run`

    `lentigo export runs/my-run --to onnx --out my-model`

    `lentigo export runs/my-run --to onnx,executorch --out for-a-phone`

    `lentigo export runs/my-run --to fp16 --name my-model --with-start --out my-model`

    `lentigo export runs/my-run --force --json`
    """
    console.require_training()
    from lentigo.core.run_dir import RunDir
    from lentigo.deploy.export import export_run

    written = export_run(
        RunDir.open(run),
        targets=[target.strip() for target in to.split(",") if target.strip()],
        out=out,
        checkpoint=checkpoint,
        force=force,
        name=name,
        with_start=with_start,
        licence=licence,
        resamples=resamples,
        progress=_steps(),
    )
    facts = {"folder": str(written.folder), "licence": written.model.licence, **written.parity.as_dict()}
    console.result(facts, as_json, lambda: _print(written))
    if written.model.synthetic:
        console.say_synthetic()
    console.say(f"export: {written.folder}    next: lentigo predict IMAGE --model {written.folder}")


def _steps() -> Callable[[str, int, int], None]:
    """One line a step, when it begins."""
    before = ""

    def show(what: str, done: int, total: int) -> None:
        nonlocal before
        if what != before:
            console.say(f"{what} ...")
            before = what

    return show


def _print(written: Export) -> None:
    from lentigo.deploy.parity_table import parity_headers, parity_notes, parity_rows

    console.print_table(
        parity_headers(written.parity), parity_rows(written.parity), title=f"{written.parity.name}, judged on val"
    )
    for note in parity_notes(written.parity):
        print(note)
    print(f"Terms: {written.model.licence}")
    print(written.model.notice)
