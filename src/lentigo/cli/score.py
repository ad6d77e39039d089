"""`lentigo score`: the rules of ISIC 2018 Task 3 for any model's predictions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lentigo.cli import console
from lentigo.cli.options import JsonFlag
from lentigo.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from lentigo.evaluation.isic import IsicJudgement
    from lentigo.evaluation.metrics import Estimate

_HEADERS = {
    "auc": "AUC",
    "auc_sens_80": "AUC sens > 80%",
    "ap": "AP",
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "dice": "Dice",
    "ppv": "PPV",
    "npv": "NPV",
}
_CLASS_TABLES = {
    "Each class against the rest, by the order of its probabilities": ("auc", "auc_sens_80", "ap"),
    "Each class against the rest, called where its probability is above 0.5 (empty: undefined)": (
        "sensitivity",
        "specificity",
        "ppv",
        "npv",
        "dice",
        "accuracy",
    ),
}
"""What is printed of a class: all nine scores with intervals would not fit a line."""


def score(
    predictions: Annotated[
        Path, typer.Argument(help="CSV with image,MEL,NV,BCC,AKIEC,BKL,DF,VASC; or a table of `lentigo evaluate`.")
    ],
    truth: Annotated[
        Path | None,
        typer.Argument(help="CSV with the same columns, 1 for the true class; or any data set, with its lesions."),
    ] = None,
    groups: Annotated[
        Path | None, typer.Option(help="CSV with image,lesion_id: intervals then resample lesions, not images.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of a data set as TRUTH, the images of this split alone.")] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap resamples.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same result.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Score any model's predictions by the rules of ISIC 2018 Task 3, with intervals; no model is run.

    `lentigo score predictions.csv truth.csv`

    `lentigo score predictions.csv truth.csv --groups lesions.csv --json`

    `lentigo score predictions.csv my_images`

    `lentigo score runs/my-run/predictions/val.csv`
    """
    from lentigo.evaluation.isic import judge_isic
    from lentigo.evaluation.isic_csv import read_groups, read_predictions, read_truth

    of_data_set = truth is not None and _is_data_set(truth)
    if split is not None and not of_data_set:
        raise ConfigError("expected --split with a data set as TRUTH; found none", "Drop --split.")
    if truth is None:
        found = _score_own_table(predictions, groups, resamples, seed)
    elif of_data_set:
        found = _score_on_data_set(predictions, truth, groups, split, resamples, seed)
    else:
        known = read_truth(truth)
        probs = read_predictions(predictions, known.image_id)
        lesions = None if groups is None else read_groups(groups, known.image_id)
        found = judge_isic(known.label, probs, weights=known.weight, groups=lesions, resamples=resamples, seed=seed)
    console.result(found.as_dict(), as_json, lambda: _print(found))


def _score_own_table(path: Path, groups: Path | None, resamples: int, seed: int) -> IsicJudgement:
    """A table of `lentigo evaluate`, which holds labels and lesions."""
    from lentigo.core.predictions import Predictions
    from lentigo.evaluation.arms import is_synthetic
    from lentigo.evaluation.isic import judge_isic
    from lentigo.evaluation.isic_csv import is_isic_table

    if is_isic_table(path):
        raise ConfigError(
            "expected PREDICTIONS and TRUTH; found no TRUTH",
            "lentigo score PREDICTIONS.csv TRUTH.csv; only a table of `lentigo evaluate` holds its own labels.",
        )
    if groups is not None:
        raise ConfigError(
            "expected --groups beside PREDICTIONS and TRUTH; found a table that holds its own lesions", "Drop --groups."
        )
    table = Predictions.from_csv(path)
    return judge_isic(
        table.label,
        table.probs,
        groups=table.lesion_id,
        resamples=resamples,
        seed=seed,
        synthetic=is_synthetic(path),
    )


def _is_data_set(truth: Path) -> bool:
    """Whether TRUTH is a folder, pack, array file or a table with diagnoses, in place of an ISIC 2018 truth file."""
    from lentigo.data.source_tables import CATALOG, HAM, read_table

    if truth.is_dir() or truth.suffix.lower() in (".npz", ".parquet"):
        return True
    return truth.is_file() and read_table(truth).layout in (HAM, CATALOG)


def _score_on_data_set(
    path: Path, data: Path, groups: Path | None, split: str | None, resamples: int, seed: int
) -> IsicJudgement:
    """Labels and lesions of a data set; intervals resample images where it has no lesion ids."""
    from lentigo.data.catalog import SPLITS
    from lentigo.data.sources import load_catalog
    from lentigo.evaluation.isic import judge_isic
    from lentigo.evaluation.isic_csv import read_predictions

    if groups is not None:
        raise ConfigError("expected --groups beside a TRUTH of ISIC 2018; found a data set", "Drop --groups.")
    if split not in (None, *SPLITS):
        raise ConfigError(f"expected a split of {', '.join(SPLITS)}; found {split}", "Correct --split.")
    catalog = load_catalog(data)
    rows = catalog if split is None else catalog.split(split)
    if not len(rows):
        raise DataError(f"{data} has no images of the split {split}", "Name another split, or leave --split out.")
    return judge_isic(
        rows.labels,
        read_predictions(path, [row.image_id for row in rows]),
        groups=[row.lesion_id for row in rows] if all(row.has_lesion_id for row in rows) else None,
        resamples=resamples,
        seed=seed,
        synthetic=rows.synthetic,
    )


def _print(found: IsicJudgement) -> None:
    from lentigo.core.taxonomy import CLASSES

    overall = {"balanced multi-class accuracy": found.balanced_accuracy, "accuracy": found.accuracy}
    overall |= {f"mean {_HEADERS[name]}": estimate for name, estimate in found.macro.items()}
    console.print_table(
        ("score", "value", "95% interval", "n"),
        [(name, console.cell(one.value), _interval(one), one.n) for name, one in overall.items()],
        title="ISIC 2018 Task 3",
    )
    for title, names in _CLASS_TABLES.items():
        rows = [
            (one.label_text, found.n_per_class[one.code], *(_short(found.per_class[one.code][name]) for name in names))
            for one in CLASSES
        ]
        console.print_table(("class", "n", *(_HEADERS[name] for name in names)), rows, title=title)
    lesions = "" if found.n_lesions is None else f" of {found.n_lesions} lesions"
    print(f"{found.n_images} images{lesions}; {found.interval}")
    if found.n_ties:
        print(f"{found.n_ties} images without an answer, since two or more classes share the highest value: wrong.")
    if found.n_left_out:
        print(f"{found.n_left_out} images of weight 0 are left out.")
    if found.synthetic:
        console.say_synthetic()


def _interval(one: Estimate) -> str:
    return "" if one.ci_low is None else f"{console.cell(one.ci_low)} to {console.cell(one.ci_high)}"


def _short(one: Estimate) -> str:
    """`0.84 [0.79 0.88]`, or without the interval where there is none."""
    if one.value is None:
        return ""
    if one.ci_low is None or one.ci_high is None:
        return f"{one.value:.2f}"
    return f"{one.value:.2f} [{one.ci_low:.2f} {one.ci_high:.2f}]"
