"""What a distillation is to do, as its folder keeps it, and the names of that folder's files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from lentigo.core.config import AugmentConfig, DataConfig, NonNegative, OptimizerConfig, Section
from lentigo.core.errors import CheckpointError, ConfigError
from lentigo.core.files import write_text_atomic
from lentigo.core.run_dir import RunDir
from lentigo.data.preprocess import Preprocess
from lentigo.training.feature_teachers import TeacherFile

CACHE_FACTOR = 1.25
"""Images are kept this much larger than the input, for crops that are not blurred."""

AUGMENT = AugmentConfig(  # type: ignore[call-arg]
    rotation_degrees=45.0,
    horizontal_flip=0.5,
    vertical_flip=0.5,
    brightness=0.3,
    contrast=0.3,
    saturation=0.3,
    hue=0.05,
    crop_min_area=0.25,
)
"""Strong: what a teacher answers is right for any view of an image, so every view is another example."""


class DistillSettings(Section):
    """All that decides a distillation. Folders and files are those of the machine that began it."""

    student: str
    teachers: Annotated[tuple[TeacherFile, ...], Field(min_length=1)]
    catalogs: tuple[str, ...] = ()
    images: str = ""
    photographs: tuple[str, ...] = ()
    sizes_px: Annotated[tuple[Annotated[int, Field(ge=32, le=1024)], ...], Field(min_length=1)] = (128,)
    epochs: Annotated[int, Field(ge=1, le=10000)] = 60
    batch_size: Annotated[int, Field(ge=2, le=65536)] = 64
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-3
    mixup_alpha: NonNegative = 0.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    held_out_share: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    seed: Annotated[int, Field(ge=0)] = 0
    licence_note: str = ""
    augment: AugmentConfig = AUGMENT
    data: DataConfig = DataConfig()  # type: ignore[call-arg]

    @property
    def digest(self) -> str:
        """Digest of all settings that change the result."""
        text = self.model_dump_json(exclude={"licence_note", "data"})
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def optimizer(self) -> OptimizerConfig:
        """Cosine after a short warm-up; norms and biases do not decay."""
        return OptimizerConfig(  # type: ignore[call-arg]
            learning_rate=self.learning_rate,
            weight_decay=0.02,
            decay_norm=False,
            schedule="cosine",
            warmup_fraction=0.05,
            gradient_clip_norm=1.0,
        )

    def size_px(self, epoch: int) -> int:
        """Input size of a 0-based epoch: the sizes share the epochs evenly, in their order."""
        return self.sizes_px[min(epoch, self.epochs - 1) * len(self.sizes_px) // self.epochs]

    def preprocess(self, size_px: int) -> Preprocess:
        """Squares of `size_px` in [0, 1]: each network normalises them by itself."""
        cached_px = round(max(self.sizes_px) * CACHE_FACTOR)
        return Preprocess(  # type: ignore[call-arg]
            resize_steps_px=(cached_px, size_px), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
        )


def build_settings(**values: object) -> DistillSettings:
    """Settings; ConfigError with all that is wrong with them."""
    try:
        return DistillSettings.model_validate(values)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, p['loc']))} = {p['input']!r}: {p['msg'].lower()}" for p in error.errors()]
        raise ConfigError(
            f"{len(problems)} wrong settings: {'; '.join(problems)}", "See lentigo distill --help."
        ) from None


class StartDir(RunDir):
    """The folder of a distillation: a run's status, log and state, its settings, and the start that it makes."""

    @property
    def settings(self) -> Path:
        """The resolved settings."""
        return self.path / "settings.json"

    @property
    def start(self) -> Path:
        """The student's weights without a classifier, in half precision."""
        return self.path / "start.safetensors"

    @classmethod
    def make(cls, path: Path, settings: DistillSettings) -> StartDir:
        """A new folder; ConfigError where there is one already."""
        cls.check_free(path)
        path.mkdir(parents=True)
        folder = cls(path)
        write_text_atomic(folder.settings, settings.model_dump_json(indent=2) + "\n")
        return folder

    @classmethod
    def check_free(cls, path: Path) -> None:
        """Raise ConfigError where something of that name exists."""
        if path.exists():
            raise ConfigError(
                f"{path} exists already", f"Choose another --out, or continue it: lentigo distill --resume --out {path}"
            )

    def read_settings(self) -> DistillSettings:
        """The settings it began with; CheckpointError where the folder is no distillation's or they are damaged."""
        if not self.settings.is_file():
            found = "no such folder" if not self.path.exists() else f"no {self.settings.name} in it"
            raise CheckpointError(
                f"{self.path} is not the folder of a distillation ({found})", "Pass the --out of an interrupted one."
            )
        try:
            return DistillSettings.model_validate_json(self.settings.read_text(encoding="utf-8"))
        except (ValidationError, ValueError) as error:
            raise CheckpointError(
                f"{self.settings} is damaged: {str(error).splitlines()[0]}", "Start a new distillation."
            ) from None
