"""What the service says, as types: they describe its answers in the OpenAPI and hold the tests to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lentigo.core.taxonomy import CLASSES
from lentigo.data.preprocess import Preprocess
from lentigo.deploy.classifier import Classifier
from lentigo.deploy.exported import NOTICE
from lentigo.deploy.limits import ServiceLimits

Share = Field(ge=0, le=1)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Problem(_Answer):
    """Why a request was refused, and what to do."""

    error: str
    remedy: str


def refusals(texts: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Status -> why it is answered, as FastAPI takes a route's `responses`; each is a `Problem`."""
    return {status: {"model": Problem, "description": text} for status, text in texts.items()}


class ImageProblem(_Answer):
    """Why an image was not judged; the others of the request were."""

    name: str
    error: str
    remedy: str


class ImageAnswer(_Answer):
    """One image's answer; see `lentigo.deploy.prediction.Prediction`.

    `heatmap` is there where the query asked for it: a PNG data URI of the class answered, or null where the model
    allows no class activation map.
    """

    name: str
    label: str
    confidence: float = Share
    probs: dict[str, float]
    malignant_risk: float = Field(ge=0, le=1 + 1e-9)
    melanoma_risk: float = Share
    operating_points: dict[str, bool]
    conformal_set: list[str]
    abstain: bool | None
    abstain_reasons: list[str]
    quality_flags: list[str]
    outlier: bool | None
    logits: list[float]
    model: str
    variant: str
    views: int
    heatmap: str | None = None


class Health(_Answer):
    """The service runs; `model` is null where it only shows runs."""

    status: Literal["ok"] = "ok"
    model: str | None
    version: str


class ClassFacts(_Answer):
    """One class of the taxonomy, in the order of the logits."""

    code: str
    name: str
    malignant: bool


class LimitFacts(_Answer):
    """What a request may carry."""

    max_file_bytes: int
    max_request_bytes: int
    max_files: int
    timeout_s: float


class ModelFacts(_Answer):
    """The model that answers."""

    name: str
    architecture: str
    variant: str
    views: int
    calibrated: bool
    heatmaps: bool
    parameters: int
    classes: list[ClassFacts]
    preprocess: Preprocess
    limits: LimitFacts
    synthetic: bool
    licence: str
    notice: str = NOTICE


def class_facts() -> list[ClassFacts]:
    """The taxonomy in its order."""
    return [ClassFacts(code=one.code, name=one.name, malignant=one.malignant) for one in CLASSES]


def model_facts(classifier: Classifier, limits: ServiceLimits) -> ModelFacts:
    """What `GET /api/model` says."""
    spec = classifier.spec
    return ModelFacts(
        name=spec.name,
        architecture=spec.architecture,
        variant=classifier.variant,
        views=classifier.views,
        calibrated=classifier.calibrated,
        heatmaps=bool(spec.head_weight),
        parameters=spec.parameters,
        classes=class_facts(),
        preprocess=spec.preprocess,
        limits=LimitFacts(**{name: getattr(limits, name) for name in LimitFacts.model_fields}),
        synthetic=spec.synthetic,
        licence=spec.licence,
        notice=spec.notice,
    )
