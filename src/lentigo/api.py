"""The functions of `import lentigo`: what the commands of the shell do, called from Python.

Each takes paths and plain values, calls the one function that its command calls, and returns what that returns.
Errors are `LentigoError`s. The whole way, on drawings:

    import lentigo

    table = lentigo.synth("drawn", num_images=200)
    lentigo.split(table, "split.csv")
    run = lentigo.train("split.csv", "demo")
    lentigo.evaluate(run)
    lentigo.export(run)
    prediction = lentigo.load(run.path).predict("photo.jpg")[0]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lentigo.core.errors import DataError
from lentigo.core.run_dir import RunDir
from lentigo.core.shipped import DEFAULT_MODEL

if TYPE_CHECKING:
    from lentigo.data.catalog import Catalog
    from lentigo.data.make_split import MadeSplits
    from lentigo.deploy.classifier import Classifier
    from lentigo.deploy.engine import Failure
    from lentigo.deploy.export import Export
    from lentigo.deploy.exported import VariantName
    from lentigo.deploy.prediction import Prediction
    from lentigo.evaluation.compare import Comparisons
    from lentigo.evaluation.evaluate import Judgement
    from lentigo.training.events import Event
    from lentigo.training.loop import Outcome


def load(
    model: RunDir | str | Path = DEFAULT_MODEL,
    *,
    variant: VariantName | None = None,
    views: int = 1,
    threads: int | None = None,
    quality: bool = True,
) -> Classifier:
    """Load an exported model: a shipped one by its name, an export's folder, or a run that was exported.

    The options are those of `Classifier.load`. No torch is needed.

    Raises:
        ConfigError: for impossible `views` or `threads`, or a `variant` that no model has.
        CheckpointError: where there is no such model or variant, or a file of it is damaged.

    Example:
        classifier = lentigo.load("runs/first")
        prediction = classifier.predict("drawn/images/SYNTH_0000002.jpg")[0]
        print(prediction.label, prediction.malignant_risk, prediction.abstain)
    """
    from lentigo.deploy.classifier import Classifier

    return Classifier.load(_path(model), variant=variant, views=views, threads=threads, quality=quality)


def predict(
    paths: str | Path | Sequence[str | Path],
    model: RunDir | str | Path = DEFAULT_MODEL,
    *,
    variant: VariantName | None = None,
    views: int = 1,
    threads: int | None = None,
    quality: bool = True,
) -> Iterator[Prediction | Failure]:
    """Answer thousands of images in order, on all cores, with a few of them in memory at a time.

    `paths`: files, folders with all below them, patterns, .zip, .parquet pack, .npz, catalogue .csv. An image that
    cannot be read is a `Failure` in its place. `threads` None: all cores. The other options are those of
    `Classifier.load`; for single images, or those in memory, use `load`. No torch is needed.

    Raises:
        DataError: where a path does not exist, or nothing is found.
        ConfigError: for web addresses, impossible `views` or `threads`, or a `variant` that no model has.
        CheckpointError: where there is no such model or variant, or a file of it is damaged.

    Example:
        for answer in lentigo.predict("drawn/images", "runs/first"):
            print(answer.name, answer.error if isinstance(answer, lentigo.Failure) else answer.label)
    """
    from lentigo.deploy.engine import predict_stream
    from lentigo.deploy.graph_session import check_threads, usable_cores
    from lentigo.deploy.inputs import find_items

    check_threads(threads)
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    if not given:
        raise DataError("expected one path or more; found none", "Pass image files, folders or patterns.")
    items = find_items(given)
    classifier = load(model, variant=variant, views=views, threads=1, quality=quality)
    workers = usable_cores() if threads is None else threads
    return (outcome.answer for outcome in predict_stream(classifier, items, workers=workers))


def synth(folder: str | Path, *, num_images: int = 1000, seed: int = 0, size_px: int = 300) -> Path:
    """Draw dermoscopy-like images of the seven classes into a new folder, and return the path of their table.

    Drawings, not patients: for demonstrations and tests.

    Raises:
        DataError: where the folder is not empty, or a number is out of range.

    Example:
        table = lentigo.synth("drawn", num_images=200)
    """
    from lentigo.data.synthetic import write_synthetic

    return write_synthetic(Path(folder), num_images=num_images, seed=seed, size_px=size_px)


def read_catalog(source: str | Path, *, images: str | Path | None = None) -> Catalog:
    """Read a data set: HAM10000 or ISIC CSV, class folders, MedMNIST .npz, Parquet pack or split CSV.

    `images` is the folder of a table's images where they are not beside it.

    Raises:
        DataError: for any problem with its rows (all at once), and for a lesion in two splits.

    Example:
        catalog = lentigo.read_catalog("drawn")
        print(len(catalog), catalog.class_counts)
    """
    from lentigo.data.sources import load_catalog

    return load_catalog(Path(source), images=None if images is None else Path(images))


def split(
    source: str | Path,
    out: str | Path,
    *,
    fractions: Mapping[str, float] | None = None,
    folds: int | None = None,
    seed: int = 0,
    images: str | Path | None = None,
    near_duplicates: bool = True,
    allow_missing_classes: bool = False,
    force: bool = False,
) -> MadeSplits:
    """Split by lesion and near-duplicate group, stratified by class, and write the table `out` (CSV).

    `fractions` None: 0.7 train, 0.15 val, 0.15 test. `folds`: k folds instead, in k tables `out` with -1 .. -k before
    the ending. The result has the `files` written and their `catalogs`.

    Raises:
        DataError: for bad data, impossible splits, and where a file exists and `force` is false.
        ConfigError: for `fractions` and `folds` together, and where `out` does not end in .csv.

    Example:
        made = lentigo.split("drawn", "split.csv")
        print(made.as_dict()["counts"])
    """
    from lentigo.data.make_split import make_splits

    return make_splits(
        Path(source),
        Path(out),
        images=None if images is None else Path(images),
        fractions=fractions,
        folds=folds,
        seed=seed,
        near_duplicates=near_duplicates,
        allow_missing_classes=allow_missing_classes,
        force=force,
        progress=lambda done, total: None,
    )


def show(
    data: Catalog | str | Path,
    folder: str | Path,
    *,
    recipe: str | Path = "paper-v2",
    format: Literal["png", "svg"] = "png",
    seed: int = 0,
) -> list[Path]:
    """Draw the class balance, and 16 training images before and after a recipe's augmentation; returns the files.

    Raises:
        DataError: where the data or an image of it cannot be read.
        ConfigError: for an unknown recipe.
        MissingExtraError: without the packages for training.

    Example:
        balance, images, augmented = lentigo.show("split.csv", "figures", recipe="demo")
    """
    _require_training()
    from lentigo.core.recipes import load_recipe
    from lentigo.evaluation.show_data import show_data

    return show_data(_catalog(data), load_recipe(str(recipe)), Path(folder), format, seed)


def train(
    data: Catalog | str | Path,
    recipe: str | Path = "quick",
    *,
    weights: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
    seed: int | None = None,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    say: Callable[[str], None] = print,
) -> RunDir:
    """Train a network on the train split and choose its epoch on val; the test split is never opened.

    `recipe`: a name, a TOML file, or RUN/config.toml; `settings` replaces keys of it, as `--set` does. `weights`:
    imagenet, lentigo (the shipped model), none, or a file; None: the recipe's. `name`: of the run's folder below
    `runs_dir`. `say` gets every line of the run's log. Several devices are for `lentigo train`.

    Raises:
        ConfigError: for wrong settings, a name that is taken, or a device that is not there.
        DataError: where the data or an image of it cannot be read.
        CheckpointError: for weights that do not fit.
        MissingExtraError: without the packages for training.
        KeyboardInterrupt: where it was stopped; all is saved, and `resume` goes on.

    Example:
        run = lentigo.train(
            "split.csv", "demo", name="first", settings={"preprocess.resize_steps_px": [64], "training.epochs": 4}
        )
    """
    _require_training()
    from lentigo.core.recipes import load_recipe
    from lentigo.evaluation.run_evaluation import epoch_scores
    from lentigo.training.devices import Devices
    from lentigo.training.run import start_run

    given = {"model.weights": weights, "training.seed": seed}
    changes = dict(settings or {}) | {key: value for key, value in given.items() if value is not None}
    run, outcome = start_run(
        load_recipe(str(recipe), _overrides(changes)),
        _catalog(data),
        root=Path(runs_dir),
        name=name,
        where=Devices(accelerator),
        score=epoch_scores,
        listen=_listener(say),
    )
    return _finished(run, outcome)


def resume(
    run: RunDir | str | Path,
    *,
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    say: Callable[[str], None] = print,
) -> RunDir:
    """Continue an interrupted run, exactly as it was, from its last saved step.

    Raises:
        CheckpointError: where there is no such run, or its files are damaged.
        ConfigError: where another process works in it.
        MissingExtraError: without the packages for training.
        KeyboardInterrupt: where it was stopped again.

    Example:
        lentigo.resume("runs/first")
    """
    _require_training()
    from lentigo.evaluation.run_evaluation import epoch_scores
    from lentigo.training.devices import Devices
    from lentigo.training.run import resume_run

    return _finished(*resume_run(_path(run), where=Devices(accelerator), score=epoch_scores, listen=_listener(say)))


def evaluate(run: RunDir | str | Path, split: Literal["val", "test"] = "val", *, resamples: int = 2000) -> Judgement:
    """Judge a run on a split: predictions, metrics with intervals, calibration, figures, report and model card.

    All of it is written into the run; each look at test is counted. The result has `metrics` (name -> value, ci_low,
    ci_high, n), `per_class` and `confusion` (rows true, columns answered).

    Raises:
        ConfigError: for a split that may not be judged.
        CheckpointError: where the run has no usable weights or rows.
        DataError: where the split has no rows, or images cannot be read.
        MissingExtraError: without the packages for training.

    Example:
        judgement = lentigo.evaluate("runs/first")
        print(judgement.metrics["balanced_accuracy"])
    """
    _require_training()
    from lentigo.evaluation.run_evaluation import evaluate_run

    return evaluate_run(_run(run), split, resamples=resamples)


def mine(
    run: RunDir | str | Path,
    recipe: str | Path = "mine",
    *,
    control: Literal["continuation", "random", "shuffled", "hard_only"] | None = None,
    hardness: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
    seed: int | None = None,
    name: str | None = None,
    runs_dir: str | Path | None = None,
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    say: Callable[[str], None] = print,
) -> RunDir:
    """Continue a finished run for one round of hard mining, in a run of its own; only training images are scored.

    `recipe`: mine, paper-v2-hard, or a TOML file with a mining section. `control`: the same round without its point,
    for comparison. `hardness`: hardness.csv of an earlier mining on the same rows, instead of new folds. `seed` None:
    that of the run; `runs_dir` None: where the run lies. The rest is as for `train`.

    Raises:
        CheckpointError: where the run has not finished.
        ConfigError: where the recipe is no mining recipe, or a setting is wrong.
        DataError: where no image is hard, or `hardness` is of other images.
        MissingExtraError: without the packages for training.
        Stopped: where the training of folds was asked to stop; the same call goes on.
        KeyboardInterrupt: where it was stopped; all is saved, and `resume` goes on.

    Example:
        mined = lentigo.mine("runs/first", "paper-v2-hard", name="mined", settings={"training.epochs": 1})
        print(mined.mining_rounds)
    """
    _require_training()
    from lentigo.evaluation.run_evaluation import epoch_scores
    from lentigo.training.devices import Devices
    from lentigo.training.mining_run import mine_run

    parent = _run(run)
    changes = dict(settings or {}) | ({} if seed is None else {"training.seed": seed})
    mined, outcome = mine_run(
        parent,
        str(recipe),
        control=control,
        overrides=_overrides(changes),
        hardness=None if hardness is None else Path(hardness),
        root=parent.path.parent if runs_dir is None else Path(runs_dir),
        name=name,
        where=Devices(accelerator),
        score=epoch_scores,
        listen=_listener(say),
    )
    return _finished(mined, outcome)


def compare(
    systems: Mapping[str, RunDir | str | Path | Sequence[RunDir | str | Path]],
    *,
    split: Literal["val", "test"] = "val",
    metric: str = "balanced_accuracy",
    margin: float = 0.01,
    paired_seeds: bool = True,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparisons:
    """Test systems against the first one on the same images: differences, intervals, p-values; no model is run.

    `systems`: name -> a run that was judged, its predictions CSV, or several of them, one a training. `margin`: the
    largest loss that still counts as not worse. `paired_seeds`: trainings of one place belong together. No torch is
    needed.

    Raises:
        ConfigError: for an unknown metric or split, or a margin that is not positive.
        DataError: where predictions are missing, or are not of the same images.

    Example:
        lentigo.evaluate("runs/mined")
        found = lentigo.compare({"first": "runs/first", "mined": "runs/mined"}, margin=0.02)
        print(found.comparisons[0].metrics["balanced_accuracy"])
    """
    from lentigo.evaluation.arms import Arm, read_arms
    from lentigo.evaluation.compare import compare as compare_arms

    given = {name: (one,) if isinstance(one, RunDir | str | Path) else tuple(one) for name, one in systems.items()}
    tables, synthetic = read_arms([Arm(name, tuple(map(_path, runs))) for name, runs in given.items()], split)
    return compare_arms(
        tables,
        split=split,
        metric=metric,
        margin=margin,
        paired_seeds=paired_seeds,
        resamples=resamples,
        seed=seed,
        synthetic=synthetic,
    )


def export(
    run: RunDir | str | Path,
    targets: Sequence[str] = ("onnx", "int8"),
    *,
    out: str | Path | None = None,
    checkpoint: Literal["best", "last"] = "best",
    name: str = "",
    with_start: bool = False,
    licence: str = "",
    resamples: int = 2000,
    force: bool = False,
) -> Export:
    """Write a run's model as ONNX, checked on val, to `out` (default RUN/export); a failed gate writes nothing.

    `targets`: onnx (float), fp16 (half the size, as fast) and int8. `with_start` adds the checkpoint in half precision,
    to train from, and its terms; `licence` replaces what the program knows of these. The result has the `folder` and
    `parity`, the proof that the graphs answer as the network does.

    Raises:
        ExportError: where a gate fails.
        ConfigError: for unknown targets, a network that cannot be exported, or an `out` that is taken.
        CheckpointError: where the run has no usable weights or rows, or is still training.
        DataError: where val or training images are missing.
        MissingExtraError: without the packages for training.

    Example:
        written = lentigo.export("runs/first", ["onnx"])
        print(written.folder, written.parity.golden_difference)
    """
    _require_training()
    from lentigo.deploy.export import export_run

    return export_run(
        _run(run),
        targets=targets,
        out=None if out is None else Path(out),
        checkpoint=checkpoint,
        force=force,
        name=name,
        with_start=with_start,
        licence=licence,
        resamples=resamples,
    )


def _require_training() -> None:
    from lentigo.doctor import require_training

    require_training()


def _path(run: RunDir | str | Path) -> Path:
    return run.path if isinstance(run, RunDir) else Path(run)


def _run(run: RunDir | str | Path) -> RunDir:
    return RunDir.open(_path(run))


def _catalog(data: Catalog | str | Path) -> Catalog:
    return read_catalog(data) if isinstance(data, str | Path) else data


def _overrides(settings: Mapping[str, object]) -> list[str]:
    """`section.key=value` with the value in TOML, so that a text which looks like a number stays a text."""
    import tomli_w

    plain = {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()}
    return [f"{key}={tomli_w.dumps({'value': value}).partition('=')[2]}" for key, value in plain.items()]


def _listener(say: Callable[[str], None]) -> Callable[[Event], None]:
    from lentigo.training.events import describe

    def listen(event: Event) -> None:
        text = describe(event)
        if text is not None:
            say(text)

    return listen


def _finished(run: RunDir, outcome: Outcome) -> RunDir:
    if not outcome.finished:
        raise KeyboardInterrupt(f"stopped; saved. Continue: lentigo.resume({str(run.path)!r})")
    return run
