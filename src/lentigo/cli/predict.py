"""`lentigo predict`: answers for images, folders and archives, one or a hundred thousand."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lentigo.cli import console
from lentigo.cli.options import JsonFlag
from lentigo.core.errors import ExitCode

if TYPE_CHECKING:
    from lentigo.deploy.classifier import Classifier
    from lentigo.deploy.engine import Outcome
    from lentigo.deploy.inputs import Item
    from lentigo.deploy.predict_run import Tally
    from lentigo.deploy.prediction import Prediction

_SHOWN_ROWS = 50
"""Longer results are printed as a summary and their first rows."""
_FIRST_ROWS = 10
_LINE_EVERY = 10
"""Lines of progress where there is no terminal."""


def predict(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...", help="Images, folders, quoted patterns, .zip, .parquet pack, .npz, catalogue .csv."
        ),
    ],
    model: Annotated[
        str | None, typer.Option(help="An exported run, its export folder or a shipped model's name.")
    ] = None,
    variant: Annotated[
        Literal["fp32", "fp16", "int8"] | None,
        typer.Option(help="Which of the model's graphs; default the first of these that it has."),
    ] = None,
    views: Annotated[int, typer.Option(help="1, 2, 4 or 8 turned copies averaged, at as many times the cost.")] = 1,
    output: Annotated[
        Literal["table", "json", "csv", "isic", "jsonl", "parquet", "html"] | None,
        typer.Option("--format", help="Default: that of --out's ending, or a table."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write instead of stdout; never overwritten.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first image that cannot be read.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a csv or jsonl file: images in it are not answered again.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads, or with ray processes; default all cores.")] = (
        None
    ),
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images that a thread takes, and that are written, at once.")
    ] = (16),
    no_quality: Annotated[
        bool, typer.Option("--no-quality", help="Do not check the pictures for blur, light and colour.")
    ] = False,
    explain: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also draw what spoke for each answer, as JPEG files.")
    ] = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Threads of this process, or Ray Data on many machines.")
    ] = "local",
    as_json: JsonFlag = False,
) -> None:
    """Answer images with an exported model; images that cannot be read are told and counted. No torch is needed.

    `lentigo predict photo.jpg --model runs/my-run`

    `lentigo predict images/ archive.zip --model runs/my-run --out predictions.csv`

    `lentigo predict "images/*.jpg" --model runs/my-run --format isic --out submission.csv`
    """
    from lentigo.core.shipped import DEFAULT_MODEL
    from lentigo.deploy.classifier import Classifier, find_model
    from lentigo.deploy.graph_session import usable_cores
    from lentigo.deploy.inputs import find_items
    from lentigo.deploy.outputs import Source, check_isic_ids
    from lentigo.deploy.predict_run import Tally, check_out, check_overlays, choose_format, draw_overlays
    from lentigo.deploy.row_files import read_done

    chosen = choose_format(output, out, as_json=as_json)
    check_out(out, chosen, resume=resume)
    items = find_items(paths)
    if chosen == "isic":
        check_isic_ids(items)
    workers = min(threads or usable_cores(), len(items))
    folder = find_model(model or DEFAULT_MODEL)
    # A graph in one thread a worker, but for fewer images than cores: then several threads share an image.
    graph_threads = max(1, (threads or usable_cores()) // workers)
    classifier = Classifier.load(folder, variant=variant, views=views, threads=graph_threads, quality=not no_quality)
    source = Source.of(classifier)
    done: dict[str, bool] = {}
    if resume and out is not None:
        done = read_done(out, source, "csv" if chosen == "csv" else "jsonl")
    left = tuple(item for item in items if item.name not in done)
    if resume:
        console.say(f"{len(items) - len(left)} of {len(items)} images are in {out} already")
    if explain is not None:
        check_overlays(explain, classifier, resume=bool(done))
    tally, keep_pixels = Tally(), explain is not None or chosen == "html"
    try:
        with (
            closing(_outcomes(classifier, folder, left, engine, workers, batch_size, keep_pixels)) as outcomes,
            _progress(len(left)) as progress,
        ):
            drawn = outcomes if explain is None else draw_overlays(outcomes, explain, classifier, items)
            followed = tally.follow(drawn, strict=strict, progress=progress)
            _write(followed, chosen, out, classifier, resume=resume, tally=tally)
    except KeyboardInterrupt:
        console.say(_kept(chosen, out))
        raise
    _say_end(tally, classifier, out, explain)
    answered_before = sum(done.get(item.name, False) for item in items)
    if not answered_before and tally.failed == tally.images:
        raise typer.Exit(ExitCode.DATA)


def _kept(chosen: str, out: Path | None) -> str:
    """What an interrupted run leaves."""
    if chosen not in ("csv", "jsonl"):
        return "nothing was written"
    return "the answers so far were printed" if out is None else f"the answers so far are in {out}; go on with --resume"


def _outcomes(
    classifier: Classifier,
    folder: Path,
    items: Sequence[Item],
    engine: str,
    workers: int,
    batch_size: int,
    keep_pixels: bool,
) -> Generator[Outcome, None, None]:
    if engine == "ray":
        from lentigo.deploy.ray_engine import predict_with_ray

        return predict_with_ray(
            folder,
            items,
            variant=classifier.variant,
            views=classifier.views,
            quality=classifier.quality,
            workers=workers,
            batch_size=batch_size,
            keep_pixels=keep_pixels,
        )
    from lentigo.deploy.engine import predict_stream

    return predict_stream(classifier, items, workers=workers, batch_size=batch_size, keep_pixels=keep_pixels)


def _write(
    outcomes: Iterator[Outcome], chosen: str, out: Path | None, classifier: Classifier, *, resume: bool, tally: Tally
) -> None:
    from lentigo.deploy.outputs import Source, write_isic, write_json, write_parquet
    from lentigo.deploy.row_files import write_rows

    source, synthetic = Source.of(classifier), classifier.spec.synthetic
    if chosen == "table":
        first = list(islice(outcomes, _SHOWN_ROWS + 1))
        for _ in outcomes:
            pass
        _print(first, tally)
    elif chosen == "json":
        write_json(outcomes, out, source, synthetic=synthetic)
    elif chosen == "isic":
        write_isic(outcomes, out)
    elif chosen == "parquet" and out is not None:
        write_parquet(outcomes, out, source, synthetic=synthetic)
    elif chosen == "html" and out is not None:
        from lentigo.deploy.html_page import write_html

        write_html(outcomes, out, source, synthetic=synthetic)
    else:
        write_rows(outcomes, out, source, "csv" if chosen == "csv" else "jsonl", resume=resume)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; elsewhere a line each tenth of many images."""
    if sys.stderr.isatty():
        with console.counter("predicting") as show:
            yield lambda done: show(done, total)
        return
    step = max(100, -(-total // _LINE_EVERY))
    yield lambda done: console.say(f"{done} of {total} images") if done % step == 0 else None


def _print(outcomes: Sequence[Outcome], tally: Tally) -> None:
    from lentigo.deploy.engine import Failure

    if not outcomes:
        return
    answers = [outcome.answer for outcome in outcomes if not isinstance(outcome.answer, Failure)]
    if tally.images == 1 and answers:
        _print_one(answers[0])
        return
    shown = answers if tally.images <= _SHOWN_ROWS else answers[:_FIRST_ROWS]
    if tally.images > _SHOWN_ROWS:
        _print_summary(tally)
    if shown:
        rows = [
            (one.name, one.label.upper(), f"{one.confidence:.2f}", f"{one.malignant_risk:.2f}", *_remarks(one))
            for one in shown
        ]
        title = None if tally.images <= _SHOWN_ROWS else "The first images"
        headers = ("image", "answer", "p", "malignant risk", "likely classes", "no answer should be given because of")
        console.print_table(headers, rows, title=title)
    if tally.images > _SHOWN_ROWS:
        print("All of them: add --out predictions.csv, or --out predictions.html to look at them.")


def _print_one(answer: Prediction) -> None:
    from lentigo.core.taxonomy import CLASSES

    rows = sorted(((answer.probs[one.code], one.label_text, one.name) for one in CLASSES), reverse=True)
    console.print_table(("class", "name", "p"), [(code, name, f"{p:.3f}") for p, code, name in rows], title=answer.name)
    likely, remarks = _remarks(answer)
    print(f"malignant risk {answer.malignant_risk:.3f}, melanoma risk {answer.melanoma_risk:.3f}")
    if likely:
        print(f"likely classes: {likely}")
    if remarks:
        print(f"no answer should be given because of: {remarks}" if answer.abstain else f"note: {remarks}")


def _print_summary(tally: Tally) -> None:
    from lentigo.core.taxonomy import CLASSES

    rows = [(one.label_text, one.name, tally.answers[one.code], tally.abstained[one.code]) for one in CLASSES]
    console.print_table(
        ("answer", "name", "images", "of these abstained from"),
        rows,
        title=f"{tally.images} images, {tally.failed} of them not readable",
    )
    if tally.flags:
        flags = ", ".join(f"{flag} {count}" for flag, count in tally.flags.most_common())
        print(f"Quality flags (an image may have several): {flags}")
    if tally.outliers:
        print(f"Images of another kind than the training images: {tally.outliers}")


def _remarks(answer: Prediction) -> tuple[str, str]:
    return ", ".join(code.upper() for code in answer.conformal_set), "; ".join(answer.abstain_reasons)


def _say_end(tally: Tally, classifier: Classifier, out: Path | None, explain: Path | None) -> None:
    if tally.failed:
        console.say(f"{tally.failed} of {tally.images} images could not be read:")
        for failure in tally.first_failures:
            console.say(f"  {failure.error}\n    remedy: {failure.remedy}")
        if tally.failed > len(tally.first_failures):
            console.say(f"  and {tally.failed - len(tally.first_failures)} more")
    if classifier.spec.synthetic:
        console.say("WARNING: the model was trained on drawings; its answers say nothing about real lesions.")
    console.say(classifier.spec.notice)
    places = [f"predictions: {out}"] if out is not None else []
    places += [f"overlays: {explain}"] if explain is not None else []
    if places:
        console.say("    ".join(places))
