"""`lentigo data`: check, audit, split, draw, pack and show data sets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from lentigo.cli import console
from lentigo.cli.audit import audit
from lentigo.cli.options import JsonFlag
from lentigo.core.errors import ConfigError, ExitCode

data_app = typer.Typer(
    help="Check, audit, split, draw, pack and show data sets.", no_args_is_help=True, rich_markup_mode="markdown"
)

Source = Annotated[
    Path,
    typer.Argument(help="HAM10000 or ISIC CSV, class folders, MedMNIST .npz, Parquet pack or split CSV."),
]
Images = Annotated[Path | None, typer.Option(help="Image folder of a CSV that has none beside it.")]
NearDuplicates = Annotated[
    bool,
    typer.Option("--near-duplicates/--no-near-duplicates", help="Compare the pictures, not only the ids."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]


@data_app.command()
def check(
    source: Source, images: Images = None, near_duplicates: NearDuplicates = True, as_json: JsonFlag = False
) -> None:
    """Find every problem of a data set, in one table; exit 3 where there are errors.

    `lentigo data check ham10000.csv`

    `lentigo data check my_folder --json`
    """
    from lentigo.data.check import check_source

    with console.counter("reading images") as progress:
        found = check_source(
            source,
            images=images,
            near_duplicates=near_duplicates,
            threads=os.cpu_count() or 1,
            progress=progress,
        )
    facts = found.as_dict()

    def lines() -> None:
        counts = "  ".join(f"{code.upper()} {count}" for code, count in found.class_counts.items())
        print(f"{found.image_count} images, {found.lesion_count} lesions: {counts}")
        if found.synthetic:
            console.say_synthetic()
        if not found.findings:
            print("No problems found.")
            return
        console.print_table(
            ("severity", "kind", "count", "found", "remedy"),
            [(f.severity, f.kind, f.count, f"{f.message}: {', '.join(f.examples)}", f.remedy) for f in found.findings],
        )

    console.result(facts, as_json, lines)
    if found.has_errors:
        raise typer.Exit(ExitCode.DATA)


data_app.command()(audit)


@data_app.command()
def split(
    source: Source,
    out: Annotated[Path, typer.Option(help="The table with splits (CSV); with --folds, one file a fold.")],
    fractions: Annotated[str | None, typer.Option(help="Shares, such as train=0.7,val=0.15,test=0.15.")] = None,
    folds: Annotated[int | None, typer.Option(help="k folds instead of fractions.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same result.")] = 0,
    images: Images = None,
    near_duplicates: NearDuplicates = True,
    allow_missing_classes: Annotated[
        bool, typer.Option("--allow-missing-classes", help="Accept splits without some rare class.")
    ] = False,
    force: Force = False,
    as_json: JsonFlag = False,
) -> None:
    """Split by lesion and near-duplicate group, stratified by class; a group never stands in two splits.

    `lentigo data split my_folder --out split.csv`

    `lentigo data split ham10000.csv --out folds.csv --folds 5 --seed 1`
    """
    from lentigo.cli.options import parse_fractions
    from lentigo.data.make_split import make_splits

    with console.counter("comparing images") as progress:
        made = make_splits(
            source,
            out,
            images=images,
            fractions=None if fractions is None else parse_fractions(fractions),
            folds=folds,
            seed=seed,
            near_duplicates=near_duplicates,
            allow_missing_classes=allow_missing_classes,
            force=force,
            progress=progress,
        )
    facts = made.as_dict()

    def lines() -> None:
        codes = list(next(iter(facts["counts"].values())))
        console.print_table(
            ("split", "images", *(code.upper() for code in codes)),
            [(name, sum(counts.values()), *counts.values()) for name, counts in facts["counts"].items()],
        )
        print(f"{facts['n_lesions']} lesions, {facts['merged_groups']} groups after merging near-duplicates")
        if made.catalogs[0].synthetic:
            console.say_synthetic()

    console.result(facts, as_json, lines)
    console.say(f"written: {', '.join(facts['files'])}    next: lentigo train {facts['files'][0]}")


@data_app.command()
def synth(
    folder: Annotated[Path, typer.Argument(help="New folder for images and synthetic.csv.")],
    images: Annotated[int, typer.Option(min=1, help="How many.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same result.")] = 0,
    size_px: Annotated[int, typer.Option(help="Side of the square images.")] = 300,
    as_json: JsonFlag = False,
) -> None:
    """Draw dermoscopy-like images of the seven classes. Drawings, not patients: for tests and demonstrations.

    `lentigo data synth drawn --images 700`
    """
    from lentigo.data.synthetic import SYNTHETIC_NOTICE, write_synthetic

    table = write_synthetic(folder, num_images=images, seed=seed, size_px=size_px)
    console.result(
        {"table": str(table), "images": images, "notice": SYNTHETIC_NOTICE},
        as_json,
        lambda: print(SYNTHETIC_NOTICE),
    )
    console.say(f"written: {table}    next: lentigo data split {table} --out split.csv")


@data_app.command()
def pack(
    source: Source,
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    size_px: Annotated[int, typer.Option(help="Side of the packed images.")] = 300,
    quality: Annotated[int, typer.Option(min=1, max=100, help="JPEG quality.")] = 92,
    resize_rule: Annotated[str, typer.Option(help="squash, or shorter_side to keep the aspect ratio.")] = "squash",
    images: Images = None,
    force: Force = False,
    as_json: JsonFlag = False,
) -> None:
    """Resize once and put images and table into one Parquet file (Hugging Face datasets read it).

    `lentigo data pack split.csv --out ham-300.parquet`
    """
    from lentigo.data.pack import write_pack
    from lentigo.data.sources import load_catalog

    if resize_rule not in ("squash", "shorter_side"):
        raise ConfigError(f"--resize-rule takes squash or shorter_side; found {resize_rule!r}", "Pass one of these.")
    catalog = load_catalog(source, images=images)
    with console.counter("packing") as progress:
        path = write_pack(
            catalog,
            out,
            size_px=size_px,
            jpeg_quality=quality,
            resize_rule=resize_rule,  # type: ignore[arg-type]
            force=force,
            progress=progress,
        )
    facts = {"file": str(path), "images": len(catalog), "megabytes": round(path.stat().st_size / 1e6, 1)}
    console.result(facts, as_json, lambda: console.print_table(("fact", "value"), facts.items()))
    console.say(f"written: {path}    next: lentigo train {path}")


@data_app.command()
def show(
    source: Source,
    out: Annotated[Path, typer.Option(help="Folder for the figures.")] = Path("figures"),
    recipe: Annotated[str, typer.Option(help="Recipe whose preprocessing and augmentation are shown.")] = "paper-v2",
    format: Annotated[str, typer.Option("--format", help="png or svg.")] = "png",
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same result.")] = 0,
    images: Images = None,
    as_json: JsonFlag = False,
) -> None:
    """Draw the 4x4 grid of training images, before and after augmentation, and the class balance.

    `lentigo data show ham10000.csv --out figures`
    """
    console.require_training()
    from lentigo.core.recipes import load_recipe
    from lentigo.data.sources import load_catalog
    from lentigo.evaluation.show_data import show_data

    if format not in ("png", "svg"):
        raise ConfigError(f"--format takes png or svg; found {format!r}", "Pass one of these.")
    kind: Literal["png", "svg"] = "png" if format == "png" else "svg"
    files = show_data(load_catalog(source, images=images), load_recipe(recipe), out, kind, seed)
    console.result(
        {"files": [str(file) for file in files]},
        as_json,
        lambda: print("\n".join(str(file) for file in files)),
    )
