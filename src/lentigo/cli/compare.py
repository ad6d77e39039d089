"""`lentigo compare`: paired tests of systems that were judged before."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lentigo.cli import console
from lentigo.cli.options import JsonFlag
from lentigo.core.errors import ConfigError
from lentigo.core.taxonomy import CLASS_CODES, CLASSES

if TYPE_CHECKING:
    from lentigo.evaluation.arms import Arm
    from lentigo.evaluation.compare import Comparison, Comparisons, Difference
    from lentigo.evaluation.delong import DeLong


def compare(
    systems: Annotated[
        list[str],
        typer.Argument(
            help="Baseline first: a folder or predictions CSV of a run or ensemble, or NAME=RUN,RUN,..., one a seed."
        ),
    ],
    split: Annotated[str, typer.Option(help="val or test; only predictions that exist are read.")] = "val",
    metric: Annotated[
        str, typer.Option(help="Decides: accuracy, balanced_accuracy, macro_f1, macro_auc, malignant_auc or log_loss.")
    ] = "balanced_accuracy",
    margin: Annotated[float, typer.Option(help="Largest loss that still counts as not worse.")] = 0.01,
    names: Annotated[str | None, typer.Option(help="Names of the systems, such as a,b.")] = None,
    paired_seeds: Annotated[
        bool, typer.Option("--paired-seeds/--own-seeds", help="Trainings of one place belong together.")
    ] = True,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap resamples.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same result.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the result to this JSON file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Test systems against the first one on the same images: differences, intervals, p-values; no model is run.

    `lentigo compare runs/quick runs/strong`

    `lentigo compare baseline=runs/a-s0,runs/a-s1 mined=runs/b-s0,runs/b-s1 --margin 0.02`

    `lentigo compare a/predictions/val.csv b/predictions/val.csv --names old,new --json`
    """
    from lentigo.core.files import write_json_atomic
    from lentigo.evaluation.arms import TEST_NOTICE, read_arms
    from lentigo.evaluation.compare import compare as compare_arms

    tables, synthetic = read_arms(parse_arms(systems, names), split)
    found = compare_arms(
        tables,
        split=split,
        metric=metric,
        margin=margin,
        paired_seeds=paired_seeds,
        resamples=resamples,
        seed=seed,
        synthetic=synthetic,
    )
    console.result(found.as_dict(), as_json, lambda: print_comparisons(found))
    if split == "test" and as_json:
        console.say(TEST_NOTICE)
    if out is not None:
        console.say(f"written: {write_json_atomic(out, found.as_dict())}")


def parse_arms(systems: list[str], names: str | None) -> list[Arm]:
    """`RUN`, `FILE.csv` or `NAME=PATH,PATH,...` each; `names` replaces all names."""
    from lentigo.evaluation.arms import Arm

    if len(systems) < 2:
        raise ConfigError(f"expected two or more systems; found {len(systems)}", "lentigo compare BASELINE OTHER")
    given = [name.strip() for name in names.split(",")] if names is not None else [""] * len(systems)
    if len(given) != len(systems) or (names is not None and not all(given)):
        raise ConfigError(
            f"--names takes one name for each of {len(systems)} systems; found {names!r}", "For example --names old,new"
        )
    return [Arm(name or own, paths) for name, (own, paths) in zip(given, map(_parse_arm, systems), strict=True)]


def _parse_arm(text: str) -> tuple[str, tuple[Path, ...]]:
    name, equals, rest = text.partition("=")
    if Path(text).exists() or not equals or "/" in name:
        name, rest = "", text
    parts = [rest] if Path(rest).exists() else rest.split(",")
    if not all(parts) or (equals and not name and rest != text):
        raise ConfigError(f"a system takes the form NAME=RUN,RUN,...; found {text!r}", "Drop the empty part.")
    paths = tuple(Path(part) for part in parts)
    return name or _common_name(paths), paths


def _common_name(paths: tuple[Path, ...]) -> str:
    """The run's name; of several what they begin with, `a` for a-s0 and a-s1."""
    names = [_name(path) for path in paths]
    if len(names) == 1:
        return names[0]
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    prefix = "".join(letters[0] for letters in alike)
    return re.sub(r"[-_.](s|seed)?[-_.]?$", "", prefix) or names[0]


def _name(path: Path) -> str:
    """The run's name, from its folder, from RUN/predictions/SPLIT.csv, or from a result's RUN.SPLIT.csv."""
    if path.suffix != ".csv":
        return path.resolve().name
    run, _, split = path.stem.rpartition(".")
    if run and split in ("val", "test"):
        return run
    return path.resolve().parents[1].name if path.parent.name == "predictions" else path.stem


def print_comparisons(found: Comparisons) -> None:
    """Every system against the first one, and what must be known to read it."""
    from lentigo.evaluation.arms import TEST_NOTICE
    from lentigo.evaluation.resampling import metric_text

    for one in found.comparisons:
        _print_one(one, found)
    each = "1 training each" if found.n_seeds == 1 else f"{found.n_seeds} trainings each"
    print(f"{found.split}: {found.n_images} images of {found.n_lesions} lesions, {each}; {found.interval}")
    if found.n_seeds == 1:
        print("One training each: other seeds may differ by as much; train several to know.")
    if len(found.comparisons) > 1:
        print(f"Holm p is corrected over the {len(found.comparisons)} systems, not over the metrics.")
    print(f"Decide by one metric that was chosen before; here {metric_text(found.metric)}.")
    if found.split == "test":
        print(TEST_NOTICE)
    if found.synthetic:
        console.say_synthetic()


def _print_one(one: Comparison, found: Comparisons) -> None:
    from lentigo.evaluation.delong import MALIGNANT, MELANOMA
    from lentigo.evaluation.resampling import metric_text

    rows = [
        (
            metric_text(name),
            console.cell(d.baseline),
            console.cell(d.other),
            _difference(d),
            console.cell(d.p),
            console.cell(d.p_holm),
            d.finding,
        )
        for name, d in one.metrics.items()
    ]
    headers = ("metric", one.baseline, one.other, "difference [95% interval]", "p", "Holm p", "finding")
    console.print_table(headers, rows, title=f"{one.other} against {one.baseline}")
    decisive = one.metrics[found.metric]
    shown = {True: "shown", False: "not shown", None: "unknown, there is no interval"}[decisive.non_inferior]
    print(f"{metric_text(found.metric)}: {decisive.finding}; not worse by {found.margin:g} or more: {shown}")
    whose = "" if found.n_seeds == 1 else ", mean probabilities of the trainings"
    for task, name in ((MALIGNANT, "malignant"), (MELANOMA, CLASSES[CLASS_CODES.index(MELANOMA)].name.lower())):
        print(f"{name} AUC{whose}: {_delong(one.delong[task])}")
    right = one.mcnemar
    alike = "" if right.one_image_per_lesion else "; too small, since lesions have several images"
    print(
        f"images right in one only{whose}: {one.baseline} {right.baseline_only}, {one.other} {right.other_only} "
        f"(exact McNemar p {right.p:.2g}{alike})\n"
    )


def _delong(test: DeLong) -> str:
    """`0.9100 and 0.9312, +0.0212 [+0.0040, +0.0384] (DeLong p 0.016, Holm p 0.031; 150 of 1000 images)`."""
    n_images = test.n_positive + test.n_negative
    if test.baseline is None or test.other is None:
        return f"undefined ({test.n_positive} of {n_images} images are positive)"
    p = "undefined" if test.p is None or test.p_holm is None else f"{test.p:.2g}, Holm p {test.p_holm:.2g}"
    lesions = "" if test.one_image_per_lesion else ", summed by lesion"
    return (
        f"{test.baseline:.4f} and {test.other:.4f}, {_difference(test)} "
        f"(DeLong p {p}; {test.n_positive} of {n_images} images{lesions})"
    )


def _difference(difference: Difference | DeLong) -> str:
    """`+0.0210 [+0.0030, +0.0400]`, or without the interval where there is none."""
    if difference.value is None:
        return ""
    interval = ""
    if difference.ci_low is not None and difference.ci_high is not None:
        interval = f" [{difference.ci_low:+.4f}, {difference.ci_high:+.4f}]"
    return f"{difference.value:+.4f}{interval}"
