"""The outlier gate of a run, fitted and judged: on drawings, corrupted images and photographs of other things."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from lentigo.core.errors import ConfigError, DataError, first_five
from lentigo.core.files import write_json_atomic
from lentigo.core.recipes import load_recipe
from lentigo.core.run_dir import RunDir
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.cache import ImageSource, open_images
from lentigo.data.catalog import Catalog, Row
from lentigo.data.corruptions import corrupt
from lentigo.data.dataset import LesionDataset
from lentigo.data.images import load_image
from lentigo.data.preprocess import Preprocess
from lentigo.data.synthetic import draw_lesion
from lentigo.data.unlabelled import list_photographs
from lentigo.evaluation.metrics import Floats
from lentigo.evaluation.outliers import (
    FeatureStatistics,
    KindJudgement,
    OutlierJudgement,
    ScoreJudgement,
    ScoreName,
    energy,
    fit_gate,
    fit_statistics,
    judge_kind,
    max_softmax,
)
from lentigo.models.checkpoint import load_checkpoint
from lentigo.training.inference import Progress, extract_features, predict_with_features
from lentigo.training.rows import judged_rows, training_rows
from lentigo.training.run import read_catalog

CORRUPTED = ("defocus", "gaussian_noise", "darker", "ink")
SEVERITY = 5
DRAWN = "drawn"


def measure_outliers(
    run: RunDir,
    photographs: Sequence[Path] = (),
    *,
    most_images: int = 200,
    most_training_images: int = 3000,
    resamples: int = 2000,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> OutlierJudgement:
    """Fit the gate of a run (statistics on train, threshold on val) and judge it on other kinds of images.

    Kinds: drawn lesions (where the run was not trained on drawings), val images under strong corruptions, and the
    images below each folder of `photographs`, at most `most_images` each, drawn by seed. Writes RUN/outliers/
    statistics.npz, gate.json and judgement.json. About 25 ms an image on a CPU. `progress` counts train, val and kinds.

    Raises:
        ConfigError: for two folders of one name, or the name of a kind that is always judged.
        DataError: where splits or folders are empty, images cannot be read, or a folder holds images of the run.
    """
    catalog, config = read_catalog(run), load_recipe(str(run.config))
    pictures = _list_folders(photographs)
    _refuse_own_images(catalog, pictures)
    network, spec = load_checkpoint(run.best)
    train = _sample(training_rows(catalog, config), most_training_images, seed)
    val = judged_rows(catalog, "val")
    data = config.data.model_copy(update={"cache": "none"})

    def dataset(rows: Catalog) -> LesionDataset:
        return LesionDataset(open_images(rows, spec.preprocess, data))

    stages = 2 + len(CORRUPTED) + (not catalog.synthetic) + len(pictures)
    statistics = fit_statistics(extract_features(network, dataset(train)), train.labels)
    progress(1, stages)
    familiar = score_images(network, dataset(val), statistics)
    progress(2, stages)
    gates = {name: fit_gate(name, scores) for name, scores in familiar.items()}
    kinds = {kind: _corrupted(_sample(val, most_images, seed), kind, spec.preprocess, seed) for kind in CORRUPTED}
    if not catalog.synthetic:
        kinds[DRAWN] = _drawn(most_images, spec.preprocess)
    kinds |= {name: dataset(_sample(rows, most_images, seed)) for name, rows in pictures.items()}
    judged: dict[ScoreName, dict[str, KindJudgement]] = {name: {} for name in gates}
    lesions = [row.lesion_id for row in val]
    for done, (kind, images) in enumerate(kinds.items(), start=3):
        groups = [row.lesion_id for row in images.images.catalog]
        for name, scores in score_images(network, images, statistics).items():
            judged[name][kind] = judge_kind(
                gates[name], familiar[name], lesions, scores, groups, resamples=resamples, seed=seed
            )
        progress(done, stages)
    found = OutlierJudgement(
        chosen="mahalanobis",
        n_train=len(train),
        n_familiar=len(val),
        synthetic=catalog.synthetic,
        scores={name: ScoreJudgement(gate=gate, kinds=judged[name]) for name, gate in gates.items()},
    )
    with run.lock():
        statistics.to_file(run.outlier_statistics)
        write_json_atomic(run.outlier_gate, gates[found.chosen].model_dump(mode="json"))
        write_json_atomic(run.outlier_judgement, found.as_dict())
    return found


def score_images(network: nn.Module, dataset: LesionDataset, statistics: FeatureStatistics) -> dict[ScoreName, Floats]:
    """Every score of every image, (N,) each; one view."""
    predictions, features = predict_with_features(network, dataset)
    return {
        "mahalanobis": statistics.distances(features),
        "energy": energy(predictions.logits),
        "max_softmax": max_softmax(predictions.logits),
    }


def _list_folders(photographs: Sequence[Path]) -> dict[str, Catalog]:
    """Name of the folder -> the images below it; checked before any image is read."""
    names = [folder.resolve().name for folder in photographs]
    taken = [name for name in names if name in (*CORRUPTED, DRAWN) or names.count(name) > 1]
    if taken:
        raise ConfigError(
            f"expected folders of different names; found {first_five(sorted(set(taken)))}",
            f"Rename them; {', '.join((*CORRUPTED, DRAWN))} are kinds that are always judged.",
        )
    return {
        name: Catalog(tuple(list_photographs([folder])[0]), name)
        for name, folder in zip(names, photographs, strict=True)
    }


def _refuse_own_images(catalog: Catalog, pictures: Mapping[str, Catalog]) -> None:
    """Images of the run's catalogue are of no other kind, and those of test would be judged without a look."""
    own = {row.image_id for row in catalog} | {row.path.stem for row in catalog if not row.member}
    found = [row.path.name for rows in pictures.values() for row in rows if row.path.stem in own]
    if found:
        raise DataError(
            f"expected photographs of other things; found {len(found)} images of the run's own data set: "
            f"{first_five(found)}",
            "Pass a folder without them.",
        )


def _sample(catalog: Catalog, most: int, seed: int) -> Catalog:
    chosen = np.zeros(len(catalog), dtype=bool)
    chosen[np.random.default_rng(seed).permutation(len(catalog))[:most]] = True
    return catalog.pick(chosen)


def _corrupted(catalog: Catalog, kind: str, preprocess: Preprocess, seed: int) -> LesionDataset:
    pictures = (
        corrupt(np.asarray(load_image(row.path, row.member)), kind, SEVERITY, image_id=row.image_id, seed=seed)
        for row in catalog
    )
    return _in_memory(catalog, pictures, preprocess)


def _drawn(count: int, preprocess: Preprocess) -> LesionDataset:
    labels = [number % len(CLASS_CODES) for number in range(count)]
    rows = [
        Row(f"drawn-{number}", Path(f"drawn-{number}"), label, f"drawn-{number}") for number, label in enumerate(labels)
    ]
    pictures = (draw_lesion(CLASS_CODES[label], lesion_seed=number) for number, label in enumerate(labels))
    return _in_memory(Catalog(tuple(rows), "drawn", synthetic=True), pictures, preprocess)


def _in_memory(catalog: Catalog, pictures: Iterable[NDArray[np.uint8]], preprocess: Preprocess) -> LesionDataset:
    squares = [np.asarray(preprocess.first_step(Image.fromarray(picture))) for picture in pictures]
    return LesionDataset(ImageSource(catalog, preprocess, np.stack(squares)))
