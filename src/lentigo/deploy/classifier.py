"""The classifier without torch: images in, typed predictions out. The shell, HTTP and the tests use this one class.

    from lentigo.deploy.classifier import Classifier

    classifier = Classifier.load("runs/my-run")
    for prediction in classifier.predict(["a.jpg", "b.png"]):
        print(prediction.name, prediction.label, prediction.malignant_risk)

`predict` is `prepare` (decode, judge the picture, resize), `judge` (the graph) and `decide` (what was fitted on val),
which callers that overlap them use by themselves. All of them may run in many threads at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lentigo.core.errors import CheckpointError, ConfigError, DataError
from lentigo.core.predictions import softmax
from lentigo.core.shipped import ASSETS, DEFAULT_MODEL
from lentigo.core.taxonomy import CLASS_CODES, NUM_CLASSES
from lentigo.data.quality import check_quality
from lentigo.deploy.doubts import outlier_doubts, rule_doubts
from lentigo.deploy.exported import MODEL_FILE, OUTLIER_NAME, ExportedModel, OutlierLimit, VariantName
from lentigo.deploy.graph_session import GraphSession, check_threads
from lentigo.deploy.image_input import ImageInput, default_name, each_image, read_image
from lentigo.deploy.prediction import Prediction
from lentigo.evaluation.calibration import Calibration, Decisions, binary_score

VIEW_COUNTS = (1, 2, 4, 8)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Prepared:
    """pixels: (S, S, 3) uint8, the finished square of the model's `Preprocess`, gray stacked; flags of the picture."""

    pixels: Pixels
    quality_flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """What the graph says of N squares.

    logits: (N, 7) float32, the mean of the views; distances: (N,) float32, of the squares as they are from the training
    images (`lentigo.evaluation.outliers`), None where the export has no limit for them.
    """

    logits: NDArray[np.float32]
    distances: NDArray[np.float32] | None

    @classmethod
    def joined(cls, parts: Sequence[Judged]) -> Judged:
        """Those of one classifier, one behind the other."""
        distances = [one.distances for one in parts if one.distances is not None]
        return cls(np.concatenate([one.logits for one in parts]), np.concatenate(distances) if distances else None)


@dataclass(frozen=True, slots=True)
class Classifier:
    """An exported model, one of its variants, and how many views of an image are averaged.

    `calibration` is what was fitted on val for just this variant and number of views, None where the export has none.
    `quality`: whether pictures are checked for blur, exposure and the like (`lentigo.data.quality`).
    """

    spec: ExportedModel = field(repr=False)
    session: GraphSession = field(repr=False)
    variant: VariantName
    views: int
    calibration: Calibration | None = field(repr=False)
    quality: bool = True

    @classmethod
    def load(
        cls,
        model: str | Path = DEFAULT_MODEL,
        *,
        variant: VariantName | None = None,
        views: int = 1,
        threads: int | None = None,
        quality: bool = True,
    ) -> Classifier:
        """Load a shipped model by its name, or an export folder, a run folder with `export/`, or a `model.json`.

        `variant` None: fp32 where there is one, else fp16, else int8. `views` of 2, 4 or 8: mirrored, flipped and
        quarter-turned copies are averaged, at as many times the cost. `threads` None: all cores.

        Raises:
            ConfigError: for impossible `views` or `threads`, or a `variant` that no model has.
            CheckpointError: where there is no such model or variant, or a file of it is damaged.
        """
        if views not in VIEW_COUNTS:
            raise ConfigError(f"expected 1, 2, 4 or 8 views; found {views}", "1 looks at the image as it is.")
        check_threads(threads)
        folder = find_model(model)
        spec = ExportedModel.load(folder)
        chosen = spec.default_variant if variant is None else variant
        graph = spec.read_graph(folder, chosen)
        name, side_px = str(folder / spec.variants[chosen].file), spec.preprocess.input_size_px
        session = GraphSession.open(graph, name, threads=threads, side_px=side_px)
        if spec.variants[chosen].outlier_limit is not None and not session.has_distances:
            raise CheckpointError(
                f"{folder}: expected the output {OUTLIER_NAME} of {chosen}, whose limit is in {MODEL_FILE}; found none",
                "Export the run again.",
            )
        return cls(spec, session, chosen, views, spec.read_calibration(folder, chosen, views), quality)

    @property
    def calibrated(self) -> bool:
        """Whether probabilities, thresholds, sets and abstaining were fitted for this variant and number of views."""
        return self.calibration is not None

    @property
    def outlier_limit(self) -> OutlierLimit | None:
        """The distance from the training images above which an image is called one of another kind."""
        return self.spec.variants[self.variant].outlier_limit

    def prepare(self, image: ImageInput, name: str = "") -> Prepared:
        """Decode an image, judge it, and make the finished square; messages call it `name`, by default its path.

        Raises:
            DataError: where it cannot be read or is no image.
            MissingExtraError: a DICOM or HEIC file without the package that reads it.
        """
        picture = read_image(image, name or default_name(image, 1))
        flags = check_quality(picture).flags if self.quality else ()
        preprocess = self.spec.preprocess
        return Prepared(preprocess.finished_square(preprocess.first_step(picture)), flags)

    def logits(self, pixels: Pixels) -> NDArray[np.float32]:
        """Mean logits of the views, (N, 7), of finished squares (N, S, S, 3) uint8; N may be large.

        Raises:
            DataError: for arrays of another shape or kind.
        """
        self._check(pixels)
        if not len(pixels):
            return np.empty((0, NUM_CLASSES), np.float32)
        return self.session.logits(pixels, views=self.views)

    def judge(self, pixels: Pixels) -> Judged:
        """All that `decide` wants of finished squares (N, S, S, 3) uint8; N may be large.

        Raises:
            DataError: for arrays of another shape or kind.
        """
        if self.outlier_limit is None:
            return Judged(self.logits(pixels), None)
        self._check(pixels)
        if not len(pixels):
            return Judged(np.empty((0, NUM_CLASSES), np.float32), np.empty(0, np.float32))
        return Judged(*self.session.judge(pixels, views=self.views))

    def feature_maps(self, pixels: Pixels) -> NDArray[np.float32]:
        """The last feature maps (N, D, H, W) of N > 0 finished squares as they are, without other views.

        Raises:
            DataError: for arrays of another shape or kind, or none.
        """
        self._check(pixels)
        if not len(pixels):
            raise DataError("expected one image or more; found none", "Pass the squares of `Classifier.prepare`.")
        return self.session.feature_maps(pixels)

    def decide(
        self,
        names: Sequence[str],
        logits: NDArray[np.float32],
        prepared_flags: Sequence[tuple[str, ...]],
        distances: NDArray[np.float32] | None = None,
    ) -> list[Prediction]:
        """Predictions from logits (N, 7), with N names and N tuples of quality flags; distances (N,) as in `Judged`.

        No answer should be given where the picture is flagged, the image is one of another kind than the training
        images, or the abstain rule does not accept it: the rule by confidence, or the one by the size of the set where
        no limit of confidence keeps the promise made on val.
        """
        found = decide(logits, self.calibration)
        risks = {question: binary_score(found.probs, question).tolist() for question in ("malignant", "melanoma")}
        sets = found.sets["class_conditional"]
        doubts = rule_doubts(found, self.calibration, self.variant, self.views)
        strange = outlier_doubts(distances, self.outlier_limit, len(logits))
        predictions = []
        rows = zip(names, logits, found.probs, prepared_flags, strict=True)
        for row, (name, row_logits, row_probs, flags) in enumerate(rows):
            answer = int(row_probs.argmax())
            flaws = (*(strange[row] or ()), *(f"quality of the picture: {flag}" for flag in flags))
            reasons = (*doubts[row], *flaws)
            predictions.append(
                Prediction(
                    name=name,
                    logits=tuple(row_logits.tolist()),
                    probs=dict(zip(CLASS_CODES, row_probs.tolist(), strict=True)),
                    label=CLASS_CODES[answer],
                    confidence=float(row_probs[answer]),
                    malignant_risk=risks["malignant"][row],
                    melanoma_risk=risks["melanoma"][row],
                    operating_points={point: bool(called[row]) for point, called in found.positive.items()},
                    conformal_set=tuple(CLASS_CODES[label] for label in np.flatnonzero(sets[row])),
                    abstain=bool(reasons) if self.calibrated else bool(flaws) or None,
                    abstain_reasons=reasons,
                    quality_flags=flags,
                    outlier=None if strange[row] is None else bool(strange[row]),
                    model=self.spec.name,
                    variant=self.variant,
                    views=self.views,
                )
            )
        return predictions

    def predict(self, images: ImageInput | Iterable[ImageInput], *, batch_size: int = 32) -> list[Prediction]:
        """Predictions of one image or several, in order; images without a path are called image-1, image-2 ...

        They are taken one at a time, so that a generator may give any number of them.

        Raises:
            DataError: at the first image that cannot be read.
            ConfigError: for a batch of no images.
        """
        if batch_size < 1:
            raise ConfigError(f"expected batches of 1 image or more; found {batch_size}", "32 is a usual number.")
        named = ((default_name(image, number), image) for number, image in enumerate(each_image(images), start=1))
        predictions: list[Prediction] = []
        while batch := self._predict(islice(named, batch_size)):
            predictions += batch
        return predictions

    def _predict(self, named: Iterable[tuple[str, ImageInput]]) -> list[Prediction]:
        batch = [(name, self.prepare(image, name)) for name, image in named]
        if not batch:
            return []
        judged = self.judge(np.stack([one.pixels for _, one in batch]))
        flags = [one.quality_flags for _, one in batch]
        return self.decide([name for name, _ in batch], judged.logits, flags, judged.distances)

    def _check(self, pixels: Pixels) -> None:
        size = self.spec.preprocess.input_size_px
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (size, size, 3):
            raise DataError(
                f"expected pixels (N, {size}, {size}, 3) uint8; found {pixels.shape} {pixels.dtype}",
                "Make them with `Classifier.prepare`, or pass images to `Classifier.predict`.",
            )


def find_model(model: str | Path) -> Path:
    """The folder that holds the `model.json` of a shipped model's name, an export, a run, or that file itself.

    Raises:
        CheckpointError: where there is none.
    """
    shipped = sorted(path.parent.name for path in ASSETS.glob(f"*/{MODEL_FILE}"))
    if str(model) in shipped:
        return ASSETS / str(model)
    path = Path(model)
    if path.name == MODEL_FILE:
        path = path.parent
    for folder in (path, path / "export"):
        if (folder / MODEL_FILE).is_file():
            return folder
    raise CheckpointError(
        f"no model at {model}: expected an exported model's folder, a run with one, or the name of a shipped model "
        f"({', '.join(shipped) or 'this installation has none'})",
        "Make one with `lentigo export RUN` and pass RUN, or the folder that it wrote.",
    )


def decide(logits: NDArray[np.float32], calibration: Calibration | None) -> Decisions:
    """`Calibration.decide`, or the plain softmax with empty sets and nothing else where there is no calibration."""
    if calibration is not None:
        return calibration.decide(logits)
    nobody = np.zeros(logits.shape, dtype=np.bool_)
    return Decisions(probs=softmax(logits), sets={"class_conditional": nobody}, accepted={}, positive={})
