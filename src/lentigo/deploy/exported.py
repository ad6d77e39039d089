"""The exported model: a folder with `model.json` and one ONNX file a variant. What every runtime reads first.

The graph of a variant takes `pixels` (N, S, S, 3) uint8: the finished square of `Preprocess` (decoded, resized,
gray stacked three times), 0..255. Scaling to [0, 1], normalisation and the change of layout are inside the graph, so
that a runtime hands over plain pixels. It gives

- `logits` (N, 7) float32: before softmax, the model's own prior correction included, for one view of the image;
- `feature_map` (N, D, H, W) float32: the last feature map, from which a class activation map is made;
- `outlier_distance` (N,) float32, where the variant has an `outlier_limit`: the squared distance of the map's mean from
  the training images' (`lentigo.evaluation.outliers`).

`views` of test-time augmentation are the runtime's business: mean logits over copies of the square, as
`lentigo.training.inference` defines them. What was fitted on val is stored for each variant and number of views
that the export judged: another variant or number of views has other logits, so it has its own calibration.
"""

from __future__ import annotations

import difflib
import hashlib
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lentigo.core.errors import CheckpointError, ConfigError, first_five
from lentigo.core.files import write_json_atomic
from lentigo.core.taxonomy import CLASS_CODES
from lentigo.data.preprocess import Preprocess
from lentigo.deploy.phone_record import PhoneProgram, PhoneTarget
from lentigo.evaluation.calibration import Calibration

MODEL_FILE = "model.json"
PARITY_FILE = "parity.json"
CARD_FILE = "MODEL_CARD.md"
GOLDEN_FOLDER = "golden"
FORMAT_VERSION = 1
METADATA_KEY = "lentigo"
"""Key of the ONNX metadata under which the same text as in `model.json` lies, without the files' digests."""
INPUT_NAME, LOGITS_NAME, FEATURE_MAP_NAME = "pixels", "logits", "feature_map"
OUTLIER_NAME = "outlier_distance"
NOTICE = "Research use only. Not a medical device, not a diagnosis."

VariantName = Literal["fp32", "fp16", "int8"]
VariantFiles: Mapping[VariantName, str] = {
    "fp32": "model.onnx",
    "fp16": "model.fp16.onnx",
    "int8": "model.int8.onnx",
}
"""In the order of preference: where none is named, the first that an export has is run. fp16 stores weights in half
precision and computes in float32, so that only its size differs."""
LICENCE_FILE = "LICENSE-WEIGHTS.txt"
PlainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=255)]
"""One file name. A model.json may come from anywhere, and a path in it would lead out of its folder."""
_PLAIN_NAME: TypeAdapter[str] = TypeAdapter(PlainName)
_AGAIN = "Export the run again, or update Lentigo if a newer version wrote it."


class OutlierLimit(BaseModel):
    """The `outlier_distance` above which an image is called one of another kind than the training images.

    Of new images of val's kind at least `pass_rate` pass on average; fixed on `n` val images and this variant's own
    distances, of which `beyond` are those above the threshold, in ascending order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    threshold: float
    pass_rate: float
    n: int
    beyond: tuple[float, ...]

    def describe(self, distance: float) -> str:
        """In words, where a distance above the threshold stands among those of val."""
        nearer = self.n - sum(one >= distance for one in self.beyond)
        return f"farther from the training images than {nearer} of {self.n} val images"


class Variant(BaseModel):
    """One ONNX file of the model.

    `calibrations`: number of views (as text: JSON keys are text) -> `evaluation.calibration.Calibration` as plain
    values, fitted on val with this variant's own logits. `outlier_limit`: None where the graph has no such output.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: PlainName
    sha256: str
    size_bytes: int
    calibrations: dict[str, dict[str, Any]] = {}
    outlier_limit: OutlierLimit | None = None


def _plainly_named(program: PhoneProgram) -> PhoneProgram:
    _PLAIN_NAME.validate_python(program.file)
    return program


class ExportedModel(BaseModel):
    """`model.json`: all that is needed to use the graphs, and where they come from.

    `head_weight` (7, D) and `head_bias` (7,) are the last linear layer where the network is feature map -> mean ->
    linear, so that class activation maps need nothing else; empty for other heads. `views` is the test-time
    augmentation that the run was judged with. `synthetic`: trained on drawings, to try things out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    name: str
    architecture: str
    classes: tuple[str, ...] = CLASS_CODES
    preprocess: Preprocess
    opset: int
    parameters: int
    macs: int
    views: Literal[1, 2, 4, 8] = 1
    head_weight: tuple[tuple[float, ...], ...] = ()
    head_bias: tuple[float, ...] = ()
    variants: dict[VariantName, Variant] = Field(min_length=1)
    phones: dict[PhoneTarget, Annotated[PhoneProgram, AfterValidator(_plainly_named)]] = {}
    synthetic: bool = False
    licence: str = ""
    notice: str = NOTICE
    provenance: dict[str, str] = {}

    def save(self, folder: Path) -> Path:
        """Write `model.json` atomically; every number comes back exactly."""
        return write_json_atomic(folder / MODEL_FILE, self.model_dump(mode="json"))

    @classmethod
    def load(cls, folder: Path) -> ExportedModel:
        """Read `model.json` of a folder.

        Raises:
            CheckpointError: where it is missing, damaged, of a newer version, or of other classes.
        """
        path = folder / MODEL_FILE
        try:
            model = cls.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise CheckpointError(
                f"no exported model in {folder}: expected {MODEL_FILE} there", "Make one with `lentigo export RUN`."
            ) from None
        except ValidationError as error:
            raise CheckpointError(
                f"{path} is no model description; missing or wrong there: {first_five(_describe(error))}",
                _AGAIN,
            ) from None
        if model.format_version != FORMAT_VERSION:
            raise CheckpointError(
                f"{path} has format version {model.format_version}; this version reads {FORMAT_VERSION}",
                "Update Lentigo.",
            )
        if model.classes != CLASS_CODES:
            raise CheckpointError(
                f"{path} knows the classes {', '.join(model.classes)}; expected {', '.join(CLASS_CODES)}",
                "Use a model of these seven classes.",
            )
        return model

    @property
    def default_variant(self) -> VariantName:
        """The variant that is run where none is named."""
        return next(name for name in VariantFiles if name in self.variants)

    def read_graph(self, folder: Path, variant: VariantName) -> bytes:
        """The bytes of a variant's ONNX file, checked against its digest.

        Raises:
            ConfigError: for a name that no variant has.
            CheckpointError: where the variant was not exported, or its file is missing or not the one exported.
        """
        if variant not in VariantFiles:
            near = difflib.get_close_matches(str(variant).lower(), VariantFiles, n=1, cutoff=0.5)
            raise ConfigError(
                f"expected a variant of {', '.join(VariantFiles)}; found {variant!r}"
                + (f" (did you mean {near[0]}?)" if near else ""),
                "Leave it out to take the first of them that the model has.",
            )
        if variant not in self.variants:
            targets = "onnx" if variant == "fp32" else f"onnx,{variant}"
            raise CheckpointError(
                f"{folder} has no variant {variant}; it has {', '.join(self.variants)}",
                f"Export it with `lentigo export RUN --to {targets}`, or take another variant.",
            )
        entry = self.variants[variant]
        path = folder / entry.file
        try:
            graph = path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror}", "Export the run again.") from None
        if hashlib.sha256(graph).hexdigest() != entry.sha256:
            raise CheckpointError(
                f"{path} is not the file that {MODEL_FILE} describes (its sha256 differs)",
                "Copy the whole folder again, or export the run again.",
            )
        return graph

    def read_calibration(self, folder: Path, variant: VariantName, views: int) -> Calibration | None:
        """What was fitted on val for a variant that there is and a number of views, None where nothing was.

        Raises:
            CheckpointError: where it is damaged or of a newer version.
        """
        values = self.variants[variant].calibrations.get(str(views))
        try:
            return None if values is None else Calibration.model_validate(values)
        except ValidationError as error:
            problems = _describe(error, f"variants.{variant}.calibrations.{views}")
            raise CheckpointError(
                f"{folder / MODEL_FILE} has a calibration that cannot be used: {first_five(problems)}", _AGAIN
            ) from None


def _describe(error: ValidationError, parent: str = "") -> list[str]:
    """Every key that is missing or wrong, below the key `parent`, with what was expected and found."""
    described = []
    for problem in error.errors():
        key = ".".join(str(part) for part in (parent, *problem["loc"]) if part != "") or "the text"
        wanted = problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
        found = "" if problem["type"] == "value_error" else f", found {reprlib.repr(problem['input'])}"
        described.append(f"{key} (missing)" if problem["type"] == "missing" else f"{key} ({wanted}{found})")
    return described
