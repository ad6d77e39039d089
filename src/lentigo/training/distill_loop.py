"""The loop of a distillation; as in training, every random draw is a function of what it is for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader

from lentigo.core.errors import CheckpointError, ConfigError
from lentigo.core.seeding import derive_seed
from lentigo.data.augment import Augment
from lentigo.data.cache import ImageSource, open_images
from lentigo.data.catalog import Catalog
from lentigo.data.dataset import LesionDataset, Sample, TrainingDataset
from lentigo.data.sampling import EpochBatches, epoch_order
from lentigo.data.unlabelled import UnlabelledImages
from lentigo.training.allocator import keep_freed_memory
from lentigo.training.clock import Clock
from lentigo.training.distill_settings import DistillSettings, StartDir
from lentigo.training.distill_start import write_start
from lentigo.training.ema import build_average
from lentigo.training.events import Decoding, Listener, Message, StepDone, Validating
from lentigo.training.feature_teachers import (
    STATISTICS_IMAGES,
    clean_batches,
    clean_features,
    open_teacher,
    standardization,
)
from lentigo.training.loop import MAX_LOADER_WORKERS
from lentigo.training.matcher import Matcher, explained_share, matching_loss, mix_images
from lentigo.training.schedule import rate_factor, set_rates
from lentigo.training.state import Progress, TrainingState, write_log
from lentigo.training.stopping import stop_requests

CHECKPOINT_S = 600.0


class Distiller:
    """One distillation of one process, from its construction (teachers filled, images decoded) to its last step.

    `catalog_sha256` is the digest of the catalogues' rows, by which a later training recognises them.
    """

    def __init__(
        self,
        settings: DistillSettings,
        images: UnlabelledImages,
        catalog_sha256: str,
        fabric: Fabric,
        listen: Listener,
    ) -> None:
        self.settings, self.images, self.catalog_sha256 = settings, images, catalog_sha256
        self.fabric, self.listen = fabric, listen
        if fabric.device.type == "cpu":
            keep_freed_memory()
        if len(images.train) < settings.batch_size:
            raise ConfigError(
                f"{len(images.train)} images to learn from do not fill one batch of {settings.batch_size}",
                "Pass a smaller --batch-size, or more images.",
            )
        listen(Message(str(images)))
        self.teachers = [open_teacher(teacher, fabric.device) for teacher in settings.teachers]
        for teacher in self.teachers:
            if teacher.trained_on not in ("", catalog_sha256):
                listen(Message(f"caution: the teacher {teacher.name} was trained on rows of another catalogue"))
        left_bytes = settings.data.cache_limit_mb * 2**20
        self.source = self._open(images.train, left_bytes)
        self.held_out = LesionDataset(self._open(images.held_out, left_bytes - self.source.cached.nbytes))
        self.targets = self._clean_features(self.held_out)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(settings.seed, "init"))
            matcher = Matcher(settings.student, [target.shape[1] for target in self.targets])
        self.matcher = matcher.to(memory_format=torch.channels_last)
        self.wrapped = fabric.setup_module(self.matcher)
        decay = settings.ema_decay
        self.state = TrainingState(
            self.matcher,
            _build_optimizer(self.matcher, settings),
            build_average(self.matcher, decay) if decay else None,
            Progress(config_digest=settings.digest, catalog_sha256=self._rows_digest(), start="random start"),
        )
        self.optimizer = fabric.setup_optimizers(self.state.optimizer)
        self.steps_per_epoch = len(images.train) // settings.batch_size
        self.total_steps = self.steps_per_epoch * settings.epochs

    def _open(self, catalog: Catalog, limit_bytes: int) -> ImageSource:
        preprocess = self.settings.preprocess(self.settings.sizes_px[-1])
        return open_images(
            catalog,
            preprocess,
            self.settings.data,
            lambda done, total: self.listen(Decoding(done, total)),
            limit_bytes=limit_bytes,
        )

    def _rows_digest(self) -> str:
        return f"{self.images.train.sha256}{self.images.held_out.sha256}"

    def _clean_features(self, data: LesionDataset) -> list[Tensor]:
        return clean_features(
            self.teachers,
            data,
            self.settings.batch_size,
            self.fabric.device,
            lambda done, total: self.listen(Validating(done, total)),
        )

    def measure_teachers(self) -> None:
        """Mean and deviation of the teachers' features over clean images, for a distillation from the start."""
        draw = np.random.default_rng(derive_seed(self.settings.seed, "statistics"))
        # In catalogue order, so that those in the cache come first, as ImageSource has it.
        chosen = np.sort(draw.permutation(len(self.source))[:STATISTICS_IMAGES])
        rows, cached = self.source.catalog.rows, self.source.cached
        catalog = replace(self.source.catalog, rows=tuple(rows[index] for index in chosen))
        sample = ImageSource(catalog, self.source.preprocess, cached[chosen[chosen < len(cached)]])
        networks = [self.matcher] if self.state.average is None else [self.matcher, self.state.average.module]
        for number, features in enumerate(self._clean_features(LesionDataset(sample))):
            center, scale = standardization(features)
            for network in networks:
                network.set_standardization(number, center, scale)

    def resume(self, folder: StartDir) -> None:
        """Take up the saved state; CheckpointError where images have changed since."""
        expected = self.state.progress
        self.state.load(folder.state)
        found = self.state.progress
        if (found.config_digest, found.catalog_sha256) != (expected.config_digest, expected.catalog_sha256):
            what = "settings" if found.config_digest != expected.config_digest else "images"
            raise CheckpointError(
                f"{folder.path}: the {what} changed since the state was saved", "Start a new distillation."
            )
        write_log(folder, found.rows)

    def run(self, folder: StartDir, limit_s: float) -> str:
        """Learn to the end (`done`), for `limit_s` seconds (0: no limit; `time limit`), or until a stop (empty).

        All three leave a saved state and a start behind.
        """
        progress, started_s = self.state.progress, time.perf_counter()
        carried_s = progress.elapsed_s
        clock = Clock(carried_s, started_s, carried_s + limit_s if limit_s else 0.0)
        with stop_requests() as stop_requested:
            while not progress.finished:
                ended = self._learn_epoch(folder, clock, stop_requested)
                progress.elapsed_s = clock.elapsed_s
                if ended is not None:
                    self._save(folder)
                    return ended
                self._finish_epoch(folder, clock)
        return progress.finished

    def loader(self, epoch: int, first_batch: int) -> DataLoader[Sample]:
        """Augmented batches of an epoch at that epoch's size, from `first_batch` on."""
        settings = self.settings
        source = replace(self.source, preprocess=settings.preprocess(settings.size_px(epoch)))
        order = epoch_order(source.catalog.labels, "none", settings.seed, epoch)
        workers = settings.data.num_workers
        if workers < 0:
            workers = 0 if self.fabric.device.type == "cpu" else min(MAX_LOADER_WORKERS, os.cpu_count() or 1)
        return DataLoader(
            TrainingDataset(source, Augment(settings.augment), settings.seed),
            batch_sampler=EpochBatches(order, epoch, settings.batch_size, first_batch),
            num_workers=workers,
            pin_memory=self.fabric.device.type == "cuda",
        )

    def step(self, images: Tensor, number: int) -> float:
        """One optimiser step on images in [0, 1], the `number`-th of all; its loss."""
        torch.manual_seed(derive_seed(self.settings.seed, "step", number))
        images = images.to(self.fabric.device, memory_format=torch.channels_last, non_blocking=True)
        config = self.settings.optimizer
        set_rates(self.state.optimizer, rate_factor(number, self.total_steps, config))
        images = mix_images(images, self.settings.mixup_alpha)
        with self.fabric.autocast():
            features = [teacher.features(images) for teacher in self.teachers]
        loss = matching_loss(self.wrapped(images), self.matcher.standardize(features))
        self.fabric.backward(loss)
        self.fabric.clip_gradients(
            self.wrapped, self.optimizer, max_norm=config.gradient_clip_norm, error_if_nonfinite=False
        )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.state.average is not None:
            self.state.average.update_parameters(self.matcher)
        return float(loss.item())

    def _learn_epoch(self, folder: StartDir, clock: Clock, stop_requested: Callable[[], bool]) -> str | None:
        """The rest of the current epoch: None, or why it stopped at a step boundary."""
        progress, epochs = self.state.progress, self.settings.epochs
        self.wrapped.train()
        for images, labels, _ in self.loader(progress.epoch, progress.batch):
            loss = self.step(images, progress.epoch * self.steps_per_epoch + progress.batch)
            progress.batch += 1
            progress.loss_sum += loss * len(labels)
            progress.seen += len(labels)
            if not abs(progress.loss_sum) < float("inf"):
                raise ConfigError(
                    f"the loss became {loss} in epoch {progress.epoch + 1}, step {progress.batch}",
                    "Pass a lower --learning-rate.",
                )
            self.listen(StepDone(progress.epoch, progress.batch, self.steps_per_epoch, epochs, loss))
            if stop_requested():
                return ""
            if clock.over and progress.batch < self.steps_per_epoch:
                return "time limit"
            if clock.since_save_s > CHECKPOINT_S:
                clock.saved()
                progress.elapsed_s = clock.elapsed_s
                self._save(folder)
        return None

    def _finish_epoch(self, folder: StartDir, clock: Clock) -> None:
        """Judge by the images kept apart; write the log, the state and the start."""
        progress, settings = self.state.progress, self.settings
        row = {
            "epoch": progress.epoch + 1,
            "size_px": settings.size_px(progress.epoch),
            "train_loss": progress.loss_sum / max(1, progress.seen),
            **self.judge(),
            "learning_rate": self.state.optimizer.param_groups[0]["lr"],
            "epoch_s": round(clock.lap(), 2),
        }
        progress.rows.append(row)
        progress.epoch += 1
        progress.batch, progress.loss_sum, progress.seen = 0, 0.0, 0
        if progress.epoch == settings.epochs:
            progress.finished = "done"
        progress.elapsed_s = clock.elapsed_s
        clock.saved()
        self._save(folder)
        self.listen(Message(_describe(row, settings.epochs)))

    def judge(self) -> dict[str, float]:
        """Loss and explained share on the clean images kept apart, by the averaged student at the last size."""
        matcher = self.state.judged
        was_training = matcher.training
        matcher.eval()
        batches = clean_batches(self.held_out, self.settings.batch_size, self.fabric.device)
        with torch.no_grad():
            parts = [matcher(batch) for batch in batches]
        matcher.train(was_training)
        guesses = [torch.cat(part) for part in zip(*parts, strict=True)]
        targets = self.matcher.standardize(self.targets)
        return {
            "held_out_loss": float(matching_loss(guesses, targets)),
            "held_out_explained": explained_share(guesses, targets),
        }

    def _save(self, folder: StartDir) -> None:
        self.state.save(folder.state)
        write_log(folder, self.state.progress.rows)
        write_start(
            folder.start,
            self.state.judged.student,
            self.settings,
            self.images,
            self.state.progress,
            steps=self.state.progress.epoch * self.steps_per_epoch + self.state.progress.batch,
            catalog_sha256=self.catalog_sha256,
        )
        folder.write_status("running", **self.standing())

    def standing(self) -> dict[str, Any]:
        """Where it stands, for status.json."""
        progress = self.state.progress
        return {"epoch": progress.epoch, "epochs": self.settings.epochs, "elapsed_s": round(progress.elapsed_s, 1)}


def _build_optimizer(matcher: Matcher, settings: DistillSettings) -> torch.optim.AdamW:
    """AdamW over all that learns; norms and biases do not decay."""
    config = settings.optimizer
    learning = [parameter for parameter in matcher.parameters() if parameter.requires_grad]
    groups = [
        {
            "params": [parameter for parameter in learning if (parameter.ndim > 1) == decayed],
            "lr": config.learning_rate,
            "base_rate": config.learning_rate,
            "weight_decay": config.weight_decay if decayed else 0.0,
        }
        for decayed in (True, False)
    ]
    return torch.optim.AdamW(groups)


def _describe(row: Mapping[str, float], epochs: int) -> str:
    return (
        f"epoch {int(row['epoch'])}/{epochs} | {int(row['size_px'])} px | train loss {row['train_loss']:.4f} | "
        f"held out loss {row['held_out_loss']:.4f} explained {row['held_out_explained']:.3f} | {row['epoch_s']:.0f} s"
    )
