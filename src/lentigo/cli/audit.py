"""`lentigo data audit`: what a score on a data set could be owed to other than the lesion's picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lentigo.cli import console
from lentigo.cli.options import JsonFlag
from lentigo.core.errors import ExitCode

if TYPE_CHECKING:
    from lentigo.data.audit import Audit, Share


def audit(
    source: Annotated[
        Path,
        typer.Argument(help="HAM10000 or ISIC CSV, class folders, MedMNIST .npz, Parquet pack or split CSV."),
    ],
    images: Annotated[Path | None, typer.Option(help="Image folder of a CSV that has none beside it.")] = None,
    near_duplicates: Annotated[
        bool,
        typer.Option("--near-duplicates/--no-near-duplicates", help="Compare the pictures, not only the ids."),
    ] = True,
    splits: Annotated[int, typer.Option(min=2, help="Random splits by image to count leaks in.")] = 20,
    permutations: Annotated[int, typer.Option(min=20, help="Permutations of the classes for each p.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same result.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the result to this JSON file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Look for leaks: lesions in two splits, files that tell the class, what a split by image would do.

    Exit 3 where a lesion, patient, group or near-duplicate stands on two sides of the split.

    `lentigo data audit ham10000.csv`

    `lentigo data audit split.csv --no-near-duplicates --json`
    """
    from lentigo.core.files import write_json_atomic
    from lentigo.data.audit import audit_source

    with console.counter("reading images") as progress:
        found = audit_source(
            source,
            images=images,
            near_duplicates=near_duplicates,
            splits=splits,
            permutations=permutations,
            seed=seed,
            threads=os.cpu_count() or 1,
            progress=progress,
        )
    console.result(found.as_dict(), as_json, lambda: _print(found))
    if out is not None:
        console.say(f"written: {write_json_atomic(out, found.as_dict())}")
    if found.has_leaks:
        raise typer.Exit(ExitCode.DATA)


def _print(found: Audit) -> None:
    parts = ", ".join(f"{name} {count}" for name, count in found.images_per_split.items())
    print(f"{found.n_images} images, {found.n_lesions} lesions; images per split: {parts}")
    if found.n_unusable_rows:
        print(f"{found.n_unusable_rows} rows cannot be used and were left out; `lentigo data check` lists them.")
    if found.synthetic:
        console.say_synthetic()
    _print_torn(found)
    _print_facts(found)
    _print_splits(found)


def _print_torn(found: Audit) -> None:
    rows = [
        (
            torn.kind,
            "not searched" if torn.count is None else torn.count,
            torn.n_checked or "",
            "; ".join(torn.examples),
        )
        for torn in found.torn
    ]
    console.print_table(("on two sides of the split", "found", "of", "examples"), rows, title="Given split")
    if found.given is None:
        print("There is no given split: nothing can stand on two sides of it.")
    if found.n_without_lesion_id:
        print(f"{found.n_without_lesion_id} images have no lesion id: their lesions cannot be looked for by id.")
    if found.has_leaks:
        print("Leaks: make a new split with `lentigo data split`, and discard scores on this one.")


def _print_facts(found: Audit) -> None:
    rows = [
        (
            one.fact.replace("_", " "),
            one.n_levels,
            console.cell(one.balanced_accuracy),
            console.cell(one.chance),
            "" if one.chance_low is None else f"{one.chance_low:.4f} to {one.chance_high:.4f}",
            console.cell(one.p),
            "tells the class" if one.tells else "",
        )
        for one in found.facts
    ]
    title = f"Class from file facts alone, {found.facts[0].n_images} images outside test"
    headers = ("fact", "levels", "balanced accuracy", "permuted", "95% of permuted", "p", "")
    console.print_table(headers, rows, title=title)


def _print_splits(found: Audit) -> None:
    by_image, given = found.by_image, {} if found.given is None else found.given.named
    rows = [
        (name.upper(), _share(given[name]) if given else "no split", _share(share), round(share.n))
        for name, share in by_image.named.items()
    ]
    counts = f"{by_image.n_splits} random splits, {by_image.n_train} train, {by_image.n_held_out} held out"
    headers = ("class", "given split", "split by image, mean ± sd", "held out by image")
    console.print_table(headers, rows, title=f"Held-out images whose lesion is also in train ({counts})")


def _share(share: Share) -> str:
    if share.value is None:
        return "no images"
    return f"{share.value:.1%}" + ("" if share.sd is None else f" ± {share.sd:.1%}")
