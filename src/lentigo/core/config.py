"""The typed configuration of a training: every key with its range, its default and its meaning.

The resolved configuration is written beside the run, and `lentigo train --config RUN/config.toml` repeats it.
`core/recipes.py` reads it from recipes and overrides.
"""

from __future__ import annotations

from typing import Annotated, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Strength = Literal["none", "sqrt", "inverse"]
TrainSplit = Literal["train", "extra"]
_CORRECTION: dict[Strength, float] = {"none": 0.0, "sqrt": 0.5, "inverse": 1.0}
"""The power of a class's frequency that a strength takes away; two strengths act one upon the other."""


class Section(BaseModel):
    """A frozen section that refuses unknown keys, infinity and NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class About(Section):
    """What a recipe is: shown by `lentigo config` and before training."""

    name: str = Field("custom", description="name of the recipe")
    source: str = Field("", description="where its settings come from")
    cost: str = Field("", description="time on a named machine")
    expected: str = Field("", description="expected validation score, and on what")
    changes: tuple[str, ...] = Field((), description="keys that were changed by --set; filled in by the program")


class DataConfig(Section):
    """Which rows are trained on and how images are kept at hand."""

    train_splits: Annotated[tuple[TrainSplit, ...], Field(min_length=1)] = Field(
        ("train",), description="splits trained on; never val or test"
    )
    include_repeats: bool = Field(False, description="also use repeat photographs of a lesion (primary = 0)")
    exclude_images: tuple[str, ...] = Field(
        (), description="image ids never trained on, such as near-duplicates of held-out images"
    )
    cache: Literal["auto", "memory", "disk", "none"] = Field(
        "auto", description="where decoded images are kept: auto takes memory, then disk, as the limit allows"
    )
    cache_limit_mb: Annotated[int, Field(ge=0)] = Field(4096, description="upper bound of the image cache in MB")
    num_workers: Annotated[int, Field(ge=-1, le=64)] = Field(
        -1, description="loader processes; -1: none on a CPU (the cores train), up to 8 beside a GPU"
    )


class PreprocessConfig(Section):
    """The evaluation contract (see `lentigo.data.preprocess.Preprocess`)."""

    color_mode: Literal["gray", "rgb"] = Field("rgb", description="gray: ITU-R 601 luma stacked three times")
    resize_steps_px: Annotated[tuple[Annotated[int, Field(ge=16, le=2048)], ...], Field(min_length=1, max_length=4)] = (
        Field((224,), description="successive squares; the last is the network's input")
    )
    resize_rule: Literal["squash", "crop"] = Field("squash", description="squash, or shorter side and centre crop")
    interpolation: Literal["bilinear", "bicubic"] = Field("bilinear", description="pillow's filter, antialiased")


class AugmentConfig(Section):
    """Random changes of training images only."""

    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = Field(0.0, description="rotation drawn from +-this")
    shift: Annotated[float, Field(ge=0, le=0.5)] = Field(0.0, description="shift as a fraction of the side, +-")
    zoom: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="scale drawn from 1 - zoom to 1 + zoom")
    horizontal_flip: Fraction = Field(0.0, description="probability")
    vertical_flip: Fraction = Field(0.0, description="probability")
    brightness: NonNegative = Field(0.0, description="factor drawn from 1 +- this")
    contrast: NonNegative = Field(0.0, description="factor drawn from 1 +- this")
    saturation: NonNegative = Field(0.0, description="factor drawn from 1 +- this; colour only")
    hue: Annotated[float, Field(ge=0, le=0.5)] = Field(0.0, description="turn of the hue circle, +-; colour only")
    crop_min_area: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="random resized crop: least area kept; 1 turns it off"
    )
    min_resolution: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="half of the images lose detail: shrunk to this fraction of the side or more, enlarged again"
    )
    grayscale: Fraction = Field(0.0, description="probability of losing all colour; colour only")


class ModelConfig(Section):
    """The network and where its weights start."""

    architecture: str = Field("mobilenet_v2", description="mobilenet_v2, mobilenet_v3_large, or timm:NAME")
    weights: str = Field(
        "imagenet", description="imagenet, lentigo (the shipped model), none, or a .safetensors or .pth file"
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.2, description="before the last linear layer")
    batch_norm: Literal["train", "frozen", "sync"] = Field(
        "train", description="train, frozen (statistics stay), or sync (across GPUs)"
    )
    batch_norm_momentum: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="overrides the architecture's (MobileNetV3: 0.01; 0.1 suits short runs)"
    )


class OptimizerConfig(Section):
    """AdamW and its learning rate over time."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = Field(1e-3, description="peak rate of the head")
    weight_decay: NonNegative = Field(0.01, description="AdamW; not on biases and normalisation if decay_norm is off")
    decay_norm: bool = Field(True, description="decay biases and normalisation too, as plain AdamW does")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="each block towards the input learns this factor slower"
    )
    schedule: Literal["constant", "cosine", "one_cycle"] = Field("cosine", description="shape after the warm-up")
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="share of steps rising from ~0")
    head_only_epochs: Annotated[int, Field(ge=0)] = Field(0, description="first epochs that train the head alone")
    gradient_clip_norm: NonNegative = Field(0.0, description="0 turns clipping off")


class LossConfig(Section):
    """Cross-entropy and its variants."""

    kind: Literal["cross_entropy", "focal", "logit_adjusted"] = Field("cross_entropy", description="loss function")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="mass spread over all classes")
    class_weights: Strength = Field("none", description="loss weights from training class counts")
    focal_gamma: NonNegative = Field(2.0, description="focal loss only")
    logit_adjustment: NonNegative = Field(1.0, description="strength tau; logit_adjusted only")
    prior_correction: Fraction = Field(
        0.0, description="after training, take this share of the log class prior off the logits; 1: uniform prior"
    )


class RegularizationConfig(Section):
    """Averaging and mixing."""

    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="average of weights and BatchNorm; 0: off")
    mixup_alpha: NonNegative = Field(0.0, description="Beta(alpha, alpha) mixing of image pairs; 0: off")
    cutmix_alpha: NonNegative = Field(0.0, description="Beta(alpha, alpha) patch area; 0: off")


class DistillationConfig(Section):
    """Learning from finished models as well as from labels; both see the same augmented image."""

    teachers: tuple[str, ...] = Field((), description="weights of finished runs (RUN/checkpoints/best.safetensors)")
    weight: Fraction = Field(0.0, description="share of the loss that follows the teachers; 0: off")
    temperature: Annotated[float, Field(gt=0, le=100)] = Field(2.0, description="softens both sides")


class MiningConfig(Section):
    """A round of hard mining (`lentigo mine`); recipes with a method continue a finished run."""

    method: Literal["none", "report", "out_of_fold"] = Field(
        "none", description="report: hard images of the trained model, alone; out_of_fold: boosted among all images"
    )
    control: Literal["none", "continuation", "random", "shuffled", "hard_only"] = Field(
        "none", description="the same round with another choice of images, for comparison"
    )
    confidence_threshold: Fraction = Field(0.6, description="report: right answers below this are hard, too")
    folds: Annotated[int, Field(ge=2, le=20)] = Field(3, description="out_of_fold: lesion-grouped folds")
    fold_seeds: Annotated[int, Field(ge=1, le=20)] = Field(2, description="out_of_fold: times all folds are trained")
    fold_epochs: Annotated[int, Field(ge=0)] = Field(0, description="epochs of a fold's training; 0: as the run")
    fold_size_px: Annotated[int, Field(ge=0, le=2048)] = Field(
        0, description="input of a fold's network; 0: as the run"
    )
    neighbors: Annotated[int, Field(ge=1, le=1000)] = Field(10, description="noise screen: nearest training images")
    suspect_confidence: Fraction = Field(0.8, description="noise screen: least probability of the same wrong class")
    suspect_agreement: Fraction = Field(0.1, description="noise screen: most neighbours with the image's own label")
    hard_fraction: Fraction = Field(
        0.12, description="share of draws that the hardest images, which are boosted, would get without"
    )
    boost: NonNegative = Field(2.0, description="weight of a hard image: 1 + boost x hardness")
    boost_cap: Annotated[float, Field(ge=1)] = Field(3.0, description="upper bound of that weight")
    max_hard_share: Fraction = Field(0.3, description="upper bound of the share of draws that go to hard images")
    ramp_fraction: Fraction = Field(0.5, description="share of the epochs over which the boost rises to its full size")
    draws_per_epoch: Annotated[int, Field(ge=0)] = Field(0, description="images drawn an epoch; 0: as many as chosen")
    fold_weights: str = Field("", description="start of the folds' networks; empty: that of the first run")
    parent: str = Field("", description="run that this round continues; filled in by the program")


class InferenceConfig(Section):
    """How a finished model is applied."""

    views: Literal[1, 2, 4, 8] = Field(
        1,
        description="test-time augmentation: mean logits over 2 (mirror), 4 (flips) or 8 (flips, quarter turns) views",
    )


class TrainingConfig(Section):
    """How long, how fast, and which epoch is kept."""

    epochs: Annotated[int, Field(ge=1, le=10000)] = Field(8, description="passes over the training set")
    small_epochs: Annotated[int, Field(ge=0)] = Field(0, description="first epochs that train at a smaller input size")
    small_size_px: Annotated[int, Field(ge=16, le=2048)] = Field(160, description="that input size")
    batch_size: Annotated[int, Field(ge=1, le=65536)] = Field(32, description="global, over all devices")
    sampler: Strength = Field("none", description="draw classes evenly: none, sqrt, or inverse of their frequency")
    selection_metric: Literal["balanced_accuracy", "accuracy", "macro_f1", "loss", "last"] = Field(
        "balanced_accuracy", description="validation metric that chooses the epoch; last takes the last"
    )
    early_stop_epochs: Annotated[int, Field(ge=0)] = Field(0, description="stop after so many without a gain; 0: off")
    time_limit_min: NonNegative = Field(0.0, description="stop and keep the best after so many minutes; 0: off")
    checkpoint_min: NonNegative = Field(5.0, description="also save within an epoch, every so many minutes; 0: off")
    precision: Literal["auto", "32", "bf16", "16"] = Field("auto", description="auto: bf16 on a GPU, 32 on a CPU")
    channels_last: bool = Field(True, description="memory layout; faster on CPUs and tensor cores")
    compile: bool = Field(False, description="torch.compile: about a minute first, then faster")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="of everything random")

    @field_validator("precision", mode="before")
    @classmethod
    def _digits_as_text(cls, value: object) -> object:
        return str(value) if value in (16, 32) else value  # `--set training.precision=32` is a number in TOML


class Config(Section):
    """A resolved recipe."""

    about: About = About()  # type: ignore[call-arg]
    data: DataConfig = DataConfig()  # type: ignore[call-arg]
    preprocess: PreprocessConfig = PreprocessConfig()  # type: ignore[call-arg]
    augment: AugmentConfig = AugmentConfig()  # type: ignore[call-arg]
    model: ModelConfig = ModelConfig()  # type: ignore[call-arg]
    optimizer: OptimizerConfig = OptimizerConfig()  # type: ignore[call-arg]
    loss: LossConfig = LossConfig()  # type: ignore[call-arg]
    regularization: RegularizationConfig = RegularizationConfig()  # type: ignore[call-arg]
    training: TrainingConfig = TrainingConfig()  # type: ignore[call-arg]
    distillation: DistillationConfig = DistillationConfig()  # type: ignore[call-arg]
    mining: MiningConfig = MiningConfig()  # type: ignore[call-arg]
    inference: InferenceConfig = InferenceConfig()  # type: ignore[call-arg]

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.loss.kind != "cross_entropy" and (self.regularization.mixup_alpha or self.regularization.cutmix_alpha):
            raise ValueError("mixup and cutmix need loss.kind = cross_entropy")
        correction = _CORRECTION[self.training.sampler] + _CORRECTION[self.loss.class_weights]
        if correction > 1 or (self.loss.kind == "logit_adjusted" and correction):
            raise ValueError(
                "the class imbalance would be corrected twice: training.sampler and loss.class_weights together take "
                "inverse once or sqrt twice, and loss.kind = logit_adjusted takes neither"
            )
        if self.loss.kind == "logit_adjusted" and self.loss.prior_correction:
            raise ValueError("loss.kind = logit_adjusted corrects the prior already; set loss.prior_correction = 0")
        if self.loss.kind == "focal" and self.loss.label_smoothing:
            raise ValueError("loss.kind = focal smooths no labels; set loss.label_smoothing = 0")
        # The teacher of a mining round that names none is the model it continues, of the same loss (`merge_round`).
        continues = self.mining.method != "none" and set(self.distillation.teachers) <= {self.model.weights}
        if self.loss.kind == "logit_adjusted" and self.distillation.weight and not continues:
            raise ValueError(
                "teachers would put back the class prior that loss.kind = logit_adjusted takes off; set "
                "distillation.weight = 0 and no teachers, or loss.kind = cross_entropy with loss.prior_correction"
            )
        if self.distillation.teachers and not self.distillation.weight:
            raise ValueError("distillation.teachers need a distillation.weight above 0")
        if self.mining.method == "none" and self.mining.control != "none":
            raise ValueError("mining.control needs a mining.method")
        if self.mining.method == "report" and self.mining.control == "hard_only":
            raise ValueError("mining.control = hard_only is what mining.method = report does already; drop it")
        if self.training.early_stop_epochs and self.training.selection_metric == "last":
            raise ValueError(
                "training.early_stop_epochs waits for a gain, and training.selection_metric = last knows none; set "
                "early_stop_epochs = 0 or another metric"
            )
        if self.training.small_epochs and self.training.small_size_px >= self.preprocess.resize_steps_px[-1]:
            raise ValueError("training.small_size_px must be less than the input size, the last of resize_steps_px")
        if self.training.small_epochs >= self.training.epochs:
            raise ValueError("training.small_epochs must be less than training.epochs: the last train at the full size")
        if self.optimizer.head_only_epochs >= self.training.epochs:
            raise ValueError("optimizer.head_only_epochs must be less than training.epochs")
        return self

    def to_toml(self) -> str:
        """The configuration as TOML, every key written out (None is left out)."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))
