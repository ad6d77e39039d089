"""A run explained: overlays of its errors and right answers, or of given files, and the check of their maps."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict

from lentigo.core.errors import ConfigError, DataError, first_five
from lentigo.core.files import write_atomic, write_json_atomic
from lentigo.core.predictions import Predictions
from lentigo.core.run_dir import RunDir
from lentigo.core.taxonomy import CLASS_CODES, parse_label
from lentigo.data.images import load_image
from lentigo.evaluation.explain import (
    ExplanationCheck,
    all_probabilities,
    check_explanations,
    class_maps,
    overlay,
    to_heat,
)
from lentigo.evaluation.run_metrics import require_present_weights
from lentigo.evaluation.thumbnails import jpeg_thumbnail
from lentigo.models.checkpoint import load_checkpoint
from lentigo.models.network import find_architecture
from lentigo.training.inference import Progress
from lentigo.training.run import read_catalog


class ExplainedImage(BaseModel):
    """One overlay. `truth` and `why` are None and "given" for files; `shown` is the class whose evidence is drawn."""

    model_config = ConfigDict(frozen=True)

    image_id: str
    why: str
    truth: str | None
    answer: str
    probability: float
    shown: str
    shown_probability: float
    file: str


class Explanations(BaseModel):
    """What one call has drawn, and the check of it; `split` is None for given files, `file` lies in RUN/explain."""

    model_config = ConfigDict(frozen=True)

    split: str | None
    synthetic: bool
    images: tuple[ExplainedImage, ...]
    check: ExplanationCheck

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready content, with the findings in words."""
        return {**self.model_dump(mode="json"), "findings": list(self.check.findings)}


def overlay_name(image_id: str, code: str) -> str:
    """`IMAGE_ID-CLASS.jpg`, with anything that a file name may not hold replaced."""
    safe = re.sub(r"[^-.\w]+", "_", image_id)
    return f"{safe}-{code}.jpg"


def choose_images(predictions: Predictions, count: int) -> dict[int, str]:
    """Row -> why it is shown, in the order of showing; each row once.

    The `count` surest errors; the surest error of each of the `count` most frequent confusions; and of each class the
    right answer of median confidence: a usual one, not the best.
    """
    probs = predictions.probs
    answers, confidence = probs.argmax(axis=1), probs.max(axis=1)
    errors = [int(i) for i in np.argsort(-confidence, kind="stable") if answers[i] != predictions.label[i]]
    chosen = dict.fromkeys(errors[:count], "sure error")
    pairs: dict[tuple[int, int], list[int]] = {}
    for i in errors:
        pairs.setdefault((int(predictions.label[i]), int(answers[i])), []).append(i)
    for rows in sorted(pairs.values(), key=len, reverse=True)[:count]:
        chosen.setdefault(rows[0], "frequent confusion")
    for label in range(probs.shape[1]):
        right = np.flatnonzero((predictions.label == label) & (answers == label))
        if len(right):
            chosen.setdefault(int(right[np.argsort(confidence[right], kind="stable")[len(right) // 2]]), "right answer")
    return chosen


@dataclass(frozen=True)
class _Case:
    """An image to explain: its picture, and what is known of it."""

    image_id: str
    lesion_id: str
    why: str
    picture: Image.Image
    truth: int | None = None


def explain_run(
    run: RunDir,
    files: Sequence[Path] = (),
    *,
    split: str = "val",
    count: int = 8,
    code: str | None = None,
    resamples: int = 2000,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> Explanations:
    """Overlays and their check: of the given files, or of errors and right answers of a split that was judged.

    Writes RUN/explain/IMAGE_ID-CLASS.jpg (explain/given/ for files), which show the image as the network sees it (size,
    shape, gray), and for a split RUN/explain/check.json, which the report reads. One view is explained, whatever
    test-time augmentation the run is judged with, so a probability may differ a little from that in the predictions.

    Raises:
        CheckpointError: where the split was judged with other weights.
        ConfigError: for an unknown split, or a network without a class map.
        DataError: for an unknown class, unreadable files, two files of one name, or a split that was not judged.
    """
    if split not in ("val", "test"):
        raise ConfigError(f"--split takes val or test; found {split!r}", "Pass one of these.")
    shown = None if code is None else parse_label(code)
    catalog = read_catalog(run)
    network, spec = load_checkpoint(run.best)
    cases = _given_cases(files) if files else _judged_cases(run, split, count)
    pictures = [spec.preprocess.remaining_steps(spec.preprocess.first_step(case.picture)) for case in cases]
    inputs = torch.from_numpy(np.stack([spec.preprocess.to_input(picture) for picture in pictures]))
    probs = all_probabilities(network, inputs)
    answers = probs.argmax(axis=1)
    targets = answers if shown is None else np.full(len(cases), shown)
    maps = class_maps(network, find_architecture(spec.architecture).cam_layer, inputs, targets)
    lesions = [case.lesion_id for case in cases]
    check = check_explanations(
        network, spec, inputs, targets, lesions, maps, resamples=resamples, seed=seed, progress=progress
    )
    drawn = []
    with run.lock():
        for i, heat in enumerate(to_heat(maps, spec.preprocess.input_size_px)):
            case, target = cases[i], int(targets[i])
            name = overlay_name(case.image_id, CLASS_CODES[target])
            name = f"given/{name}" if files else name  # never over an overlay of the split, which the report shows
            _save_jpeg(overlay(pictures[i], heat), run.explanations / name)
            drawn.append(
                ExplainedImage(
                    image_id=case.image_id,
                    why=case.why,
                    truth=None if case.truth is None else CLASS_CODES[case.truth],
                    answer=CLASS_CODES[answers[i]],
                    probability=float(probs[i, answers[i]]),
                    shown=CLASS_CODES[target],
                    shown_probability=float(probs[i, target]),
                    file=name,
                )
            )
        found = Explanations(
            split=None if files else split, synthetic=catalog.synthetic, images=tuple(drawn), check=check
        )
        if not files:
            write_json_atomic(run.explanation_check, found.as_dict())
    return found


def read_explanations(run: RunDir) -> Explanations | None:
    """What RUN/explain/check.json says; None where nothing was explained, DataError where it is damaged."""
    path = run.explanation_check
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content.pop("findings", None)
        return Explanations.model_validate(content)
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged: {error}", f"Run `lentigo explain {run.path}` again.") from None


def overlay_thumbnails(run: RunDir, found: Explanations) -> list[tuple[ExplainedImage, bytes]]:
    """Each overlay that is still there as a small JPEG, for the report; no network is run."""
    pairs = []
    for one in found.images:
        path = run.explanations / one.file
        if path.is_file():
            pairs.append((one, jpeg_thumbnail(load_image(path))))
    return pairs


def _given_cases(files: Sequence[Path]) -> list[_Case]:
    """Named by the file without its ending, each a lesion of its own."""
    twice = [stem for stem, times in Counter(path.stem for path in files).items() if times > 1]
    if twice:
        raise DataError(f"several files are called {first_five(twice)}", "Explain them one at a time.")
    return [_Case(path.stem, path.stem, "given", load_image(path)) for path in files]


def _judged_cases(run: RunDir, split: str, count: int) -> list[_Case]:
    if not run.predictions(split).is_file():
        raise DataError(
            f"{run.path} was not judged on {split} yet; only images that were judged are explained",
            f"Run `lentigo evaluate {run.path} --split {split}` first.",
        )
    require_present_weights(run, split)
    predictions = Predictions.from_csv(run.predictions(split))
    rows = {row.image_id: row for row in read_catalog(run)}
    chosen = choose_images(predictions, count)
    foreign = [predictions.image_id[i] for i in chosen if predictions.image_id[i] not in rows]
    if foreign or not chosen:
        raise DataError(
            f"{run.predictions(split)} has {first_five(foreign) or 'no images'}: not the run's images",
            "Run `lentigo evaluate` again.",
        )
    cases = []
    for i, why in chosen.items():
        row = rows[predictions.image_id[i]]
        picture = load_image(row.path, row.member)
        cases.append(_Case(row.image_id, predictions.lesion_id[i], why, picture, int(predictions.label[i])))
    return cases


def _save_jpeg(picture: Image.Image, path: Path) -> None:
    write_atomic(path, lambda temporary: picture.save(temporary, "JPEG", quality=90))
