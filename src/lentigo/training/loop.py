"""The training loop. It emits events and writes into the run folder; it prints nothing.

One path serves one process and many: an unset feature (average, mixing, clipping, several devices) is a no-op,
not another loop.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lentigo.core.config import Config
from lentigo.core.errors import CheckpointError, ConfigError, DataError
from lentigo.core.predictions import Predictions
from lentigo.core.run_dir import RunDir
from lentigo.core.seeding import derive_seed
from lentigo.data.augment import Augment
from lentigo.data.catalog import Catalog
from lentigo.data.dataset import LesionDataset, Sample, TrainingDataset
from lentigo.data.sampling import EpochBatches, draw_probabilities, epoch_order
from lentigo.models.checkpoint import ModelSpec, save_checkpoint
from lentigo.models.losses import Loss, build_loss, distillation_loss, prior_shift
from lentigo.models.network import (
    find_architecture,
    freeze_backbone,
    set_training_mode,
)
from lentigo.models.weights import WeightsReport
from lentigo.training.allocator import keep_freed_memory
from lentigo.training.clock import Clock
from lentigo.training.ema import build_average
from lentigo.training.events import EpochDone, Listener, Message, StepDone, Validating
from lentigo.training.inference import predict_logits
from lentigo.training.mining_table import RoundTable, ramped
from lentigo.training.mixing import Mixer
from lentigo.training.rows import build_preprocess, judged_rows, training_rows
from lentigo.training.schedule import build_optimizer, rate_factor, set_rates
from lentigo.training.setup import check_batch, describe_rows, open_both, start_network
from lentigo.training.state import Progress, TrainingState, config_digest, write_log
from lentigo.training.stopping import stop_requests
from lentigo.training.teachers import load_teachers

Score = Callable[[Predictions], Mapping[str, float]]
"""Validation predictions -> loss, accuracy, balanced_accuracy and macro_f1."""

LOWER_IS_BETTER = ("loss",)
MAX_LOADER_WORKERS = 8


@dataclass(frozen=True)
class Outcome:
    """How a training ended: `finished` is done, early stop or time limit; empty if it was interrupted.

    `rank` numbers this process among all; the first speaks for them.
    """

    finished: str
    best_epoch: int
    best_score: float | None
    elapsed_s: float
    weights: WeightsReport
    rank: int = 0


class Trainer:
    """One training of one run, from its construction (data decoded, network built) to its outcome.

    `resuming` leaves out the starting weights, which a saved state replaces and which may be gone by then. `table`
    weights the training images of a round of hard mining.
    """

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        fabric: Fabric,
        score: Score,
        listen: Listener,
        *,
        resuming: bool = False,
        table: RoundTable | None = None,
    ) -> None:
        catalog.check_disjoint()
        self.config, self.fabric, self.score, self.listen = config, fabric, score, listen
        if fabric.device.type == "cpu":
            keep_freed_memory()
        self.architecture = find_architecture(config.model.architecture)
        self.catalog_sha256 = catalog.sha256
        check_batch(config, fabric)
        train, val = training_rows(catalog, config), judged_rows(catalog, "val")
        if not len(val) and config.training.selection_metric != "last":
            raise DataError(
                f"no validation rows, but training.selection_metric = {config.training.selection_metric}; "
                f"{len(catalog.split('val'))} of the {len(catalog)} images are in val, none of them primary",
                "Add a val split with a primary image of each lesion, or pass --set training.selection_metric=last.",
            )
        listen(Message(describe_rows(catalog, train, val, config)))
        self.table = table
        self.factors = None if table is None else table.ordered(train).weight
        self.network, self.weights = start_network(config, fabric, catalog, listen, resuming=resuming)
        train_images, val_images = open_both(train, val, build_preprocess(config, self.architecture), config, listen)
        self.train_data = TrainingDataset(train_images, Augment(config.augment), config.training.seed)
        self.val_data = LesionDataset(val_images)
        self.labels = train.labels
        drawable = train.labels if self.factors is None else train.labels[self.factors > 0]
        self.loss: Loss = build_loss(config.loss, torch.from_numpy(drawable))
        preprocess = self.train_data.images.preprocess
        self.teachers = load_teachers(config.distillation, preprocess, self.catalog_sha256, fabric.device, listen)
        drawn = draw_probabilities(train.labels, config.training.sampler, self.factors)
        tau = config.loss.prior_correction
        self.shift = prior_shift(train.labels, drawn, config.loss.class_weights, tau) if tau else None
        self.mix = Mixer(config.regularization)
        self._use(self.network)
        decay = config.regularization.ema_decay
        self.state = TrainingState(
            self.network,
            build_optimizer(self.network, self.architecture, config.optimizer),
            build_average(self.network, decay) if decay else None,
            Progress(
                config_digest=config_digest(config), catalog_sha256=self.catalog_sha256, start=self.weights.origin
            ),
        )
        # Fabric's optimiser undoes the loss scaling of 16-bit precision before it steps.
        self.optimizer = fabric.setup_optimizers(self.state.optimizer)
        self.steps_per_epoch = self._batches(0, 0).batches_per_epoch
        self.total_steps = self.steps_per_epoch * config.training.epochs

    def _use(self, network: nn.Module) -> None:
        """Hand the network to Fabric, again when the set of learning layers changes."""
        compiled = torch.compile(network) if self.config.training.compile else network
        self.wrapped = self.fabric.setup_module(compiled)

    def _batches(self, epoch: int, first_batch: int) -> EpochBatches:
        training, mining = self.config.training, self.config.mining
        factors = None if self.factors is None else ramped(self.factors, epoch, training.epochs, mining)
        order = epoch_order(self.labels, training.sampler, training.seed, epoch, factors, mining.draws_per_epoch)
        return EpochBatches(
            order, epoch, training.batch_size, first_batch, self.fabric.global_rank, self.fabric.world_size
        )

    def loader(self, epoch: int, first_batch: int) -> DataLoader[Sample]:
        """This process's batches of an epoch, from `first_batch` on."""
        training = self.config.training
        size_px = training.small_size_px if epoch < training.small_epochs else None
        return DataLoader(
            replace(self.train_data, size_px=size_px),
            batch_sampler=self._batches(epoch, first_batch),
            num_workers=self.num_workers,
            pin_memory=self.fabric.device.type == "cuda",
        )

    @property
    def num_workers(self) -> int:
        """Loader processes: on a CPU they would only take the cores from the training."""
        if self.config.data.num_workers >= 0:
            return self.config.data.num_workers
        if self.fabric.device.type == "cpu":
            return 0
        return min(MAX_LOADER_WORKERS, os.cpu_count() or 1)

    def resume(self, run: RunDir) -> None:
        """Take up the state that `run` saved; CheckpointError where recipe or data have changed."""
        expected = self.state.progress
        self.state.load(run.state)
        found = self.state.progress
        if (found.config_digest, found.catalog_sha256) != (expected.config_digest, expected.catalog_sha256):
            what = "recipe" if found.config_digest != expected.config_digest else "rows or splits"
            raise CheckpointError(
                f"{run.path}: the {what} changed since the state was saved",
                "Start a new run; do not edit a run's files.",
            )
        self.weights = WeightsReport(found.start)
        if found.loss_scaler:
            self.fabric.strategy.precision.load_state_dict(found.loss_scaler)
        # A kill between the state and the log of the last epoch leaves a log that nobody would complete.
        if self.fabric.is_global_zero:
            write_log(run, found.rows)

    def fit(self, run: RunDir) -> Outcome:
        """Train to the end, an early stop, the time limit or an interruption (which saves the state first)."""
        progress, started_s = self.state.progress, time.perf_counter()
        carried_s = progress.elapsed_s
        with stop_requests() as stop_requested:
            while not progress.finished:
                clock = Clock(carried_s, started_s, self.config.training.time_limit_min * 60)
                if not self._train_epoch(run, clock, stop_requested):
                    progress.elapsed_s = clock.elapsed_s
                    self._save_state(run)
                    break
                progress.elapsed_s = clock.elapsed_s
                self._finish_epoch(run, clock)
        return Outcome(
            progress.finished,
            progress.best_epoch,
            progress.best_score,
            progress.elapsed_s,
            self.weights,
            self.fabric.global_rank,
        )

    def step(self, images: Tensor, labels: Tensor, number: int) -> tuple[float, int]:
        """One optimiser step, the `number`-th of the run; its loss and how many images were right."""
        torch.manual_seed(derive_seed(self.config.training.seed, "step", number, self.fabric.global_rank))
        layout = torch.channels_last if self.config.training.channels_last else torch.contiguous_format
        images = images.to(self.fabric.device, memory_format=layout, non_blocking=True)
        labels = labels.to(self.fabric.device, non_blocking=True)
        clip_norm = self.config.optimizer.gradient_clip_norm
        set_rates(self.state.optimizer, rate_factor(number, self.total_steps, self.config.optimizer))
        mixed, targets = self.mix(images, labels)
        logits = self.wrapped(mixed)
        loss = self.loss(logits.float(), targets)
        if len(self.teachers):
            distillation = self.config.distillation
            with self.fabric.autocast():
                taught = self.teachers(mixed)
            follow = distillation_loss(logits.float(), taught, distillation.temperature)
            loss = (1 - distillation.weight) * loss + distillation.weight * follow
        self.fabric.backward(loss)
        if clip_norm:
            # In 16-bit precision a step with infinite gradients is skipped, and must not raise.
            self.fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=clip_norm, error_if_nonfinite=False)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.state.average is not None:
            self.state.average.update_parameters(self.network)
        return loss.item(), int((logits.argmax(dim=1) == labels).sum())

    def prepare_epoch(self, epoch: int) -> None:
        """Learning layers and modes for this epoch."""
        frozen = epoch < self.config.optimizer.head_only_epochs
        learns = [parameter.requires_grad for parameter in self.network.parameters()]
        freeze_backbone(self.network, self.architecture, frozen)
        if learns != [parameter.requires_grad for parameter in self.network.parameters()]:
            self._use(self.network)
        freeze_norm = self.config.model.batch_norm == "frozen"
        self.wrapped.train()
        set_training_mode(self.network, self.architecture, backbone_frozen=frozen, freeze_norm=freeze_norm)

    def _train_epoch(self, run: RunDir, clock: Clock, stop_requested: Callable[[], bool]) -> bool:
        """The rest of the current epoch; False where a stop was asked for (the state is at a step boundary)."""
        progress = self.state.progress
        self.prepare_epoch(progress.epoch)
        for images, labels, _ in self.loader(progress.epoch, progress.batch):
            number = progress.epoch * self.steps_per_epoch + progress.batch
            loss, correct = self.step(images, labels, number)
            tally = [
                loss * len(labels),
                correct,
                len(labels),
                stop_requested(),
                clock.over,
                self._save_is_due(clock),
            ]
            loss_sum, right, seen, stop, over, save = self._sum(tally)
            progress.batch += 1
            progress.loss_sum += loss_sum
            progress.correct += int(right)
            progress.seen += int(seen)
            self._check_finite(progress)
            self.listen(
                StepDone(progress.epoch, progress.batch, self.steps_per_epoch, self.config.training.epochs, loss)
            )
            if stop:
                return False
            ended = progress.batch == self.steps_per_epoch and progress.epoch + 1 == self.config.training.epochs
            if over and not ended:
                progress.finished = "time limit"
                return True
            if save:
                clock.saved()
                progress.elapsed_s = clock.elapsed_s
                self._save_state(run)
        return True

    def _sum(self, values: list[float]) -> list[float]:
        """Sums over processes; decisions travel with the numbers, so that all processes take the same one."""
        if self.fabric.world_size == 1:
            return values
        total = self.fabric.all_reduce(torch.tensor(values, dtype=torch.float64), reduce_op="sum")
        assert isinstance(total, Tensor)
        return [float(value) for value in total]

    def _save_is_due(self, clock: Clock) -> bool:
        interval_s = self.config.training.checkpoint_min * 60
        return self.fabric.is_global_zero and 0 < interval_s < clock.since_save_s

    def _check_finite(self, progress: Progress) -> None:
        if progress.loss_sum != progress.loss_sum or progress.loss_sum == float("inf"):
            raise ConfigError(
                f"the training loss became {progress.loss_sum} in epoch {progress.epoch + 1}, step {progress.batch}",
                "Lower optimizer.learning_rate, set optimizer.gradient_clip_norm=1, or use training.precision=32.",
            )

    def _finish_epoch(self, run: RunDir, clock: Clock) -> None:
        """Validate, keep the weights if they are the best so far, write log, weights and state."""
        progress, training = self.state.progress, self.config.training
        last_step = progress.epoch * self.steps_per_epoch + progress.batch - 1
        last_factor = rate_factor(last_step, self.total_steps, self.config.optimizer)
        row: dict[str, float] = {
            "epoch": progress.epoch + 1,
            "train_loss": progress.loss_sum / max(1, progress.seen),
            "train_accuracy": progress.correct / max(1, progress.seen),
            "learning_rate": self.config.optimizer.learning_rate * last_factor,
        }
        train_s = clock.lap()
        if len(self.val_data):
            self._share_statistics()
            scores = self.score(self.validate())
            row |= {f"val_{name}": value for name, value in scores.items()}
        row |= {"train_s": round(train_s, 2), "val_s": round(clock.lap(), 2)}
        progress.rows.append(row)
        best = self._is_best(row)
        if best:
            progress.best_epoch = progress.epoch
            metric = f"val_{training.selection_metric}"
            progress.best_score = row.get(metric)
        progress.epoch += 1
        progress.batch, progress.loss_sum, progress.correct, progress.seen = 0, 0.0, 0, 0
        if not progress.finished and progress.epoch == training.epochs:
            progress.finished = "done"
        waited = progress.epoch - 1 - progress.best_epoch
        if not progress.finished and training.early_stop_epochs and waited >= training.early_stop_epochs:
            progress.finished = "early stop"
        progress.elapsed_s = clock.elapsed_s
        self._save_epoch(run, best)
        self.listen(EpochDone(row, training.epochs, best))

    def validate(self) -> Predictions:
        """Logits of the validation rows by the judged network, in one view, with its prior correction."""
        found = predict_logits(
            self.state.judged,
            self.val_data,
            device=self.fabric.device,
            num_workers=self.num_workers,
            channels_last=self.config.training.channels_last,
            progress=lambda done, total: self.listen(Validating(done, total)),
        )
        return found if self.shift is None else replace(found, logits=found.logits + self.shift.numpy())

    def _is_best(self, row: Mapping[str, float]) -> bool:
        metric = self.config.training.selection_metric
        best = self.state.progress.best_score
        if metric == "last" or best is None:
            return True
        value = row[f"val_{metric}"]
        return value < best if metric in LOWER_IS_BETTER else value > best

    def _share_statistics(self) -> None:
        """Average BatchNorm statistics over processes, which each saw their own share of the batches."""
        if self.fabric.world_size == 1:
            return
        # A dict, not a set: every process must come to the networks in the same order.
        for network in dict.fromkeys((self.network, self.state.judged)):
            for buffer in network.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.fabric.all_reduce(buffer, reduce_op="mean"))

    def _save_epoch(self, run: RunDir, best: bool) -> None:
        if self.fabric.is_global_zero:
            spec = self.model_spec()
            # Before the state: a resume from the older state repeats the epoch, and on a CPU writes the same weights.
            if best:
                save_checkpoint(run.best, self.state.judged.state_dict(), spec)
            save_checkpoint(run.last, self.state.judged.state_dict(), spec)
        self._save_state(run)

    def _save_state(self, run: RunDir) -> None:
        """The state, then log and status, which a resume writes again from it: a kill in between loses nothing."""
        self._share_statistics()
        if self.fabric.is_global_zero:
            self.state.progress.loss_scaler = self.fabric.strategy.precision.state_dict()
            self.state.save(run.state)
            write_log(run, self.state.progress.rows)
            run.write_status("running", **self.facts())
        self.fabric.barrier()

    def facts(self) -> dict[str, Any]:
        """Where the training stands, for status.json."""
        progress = self.state.progress
        return {
            "epoch": progress.epoch,
            "epochs": self.config.training.epochs,
            "best_epoch": progress.best_epoch + 1 if progress.best_epoch >= 0 else None,
            "best_score": progress.best_score,
            "elapsed_s": round(progress.elapsed_s, 1),
            "start": self.weights.origin,
            "synthetic": self.train_data.images.catalog.synthetic,
        }

    def model_spec(self) -> ModelSpec:
        """Description of the weights as they are now."""
        progress = self.state.progress
        return ModelSpec(
            architecture=self.config.model.architecture,
            dropout=self.config.model.dropout,
            preprocess=self.train_data.images.preprocess,
            logit_shift=() if self.shift is None else tuple(self.shift.tolist()),
            views=self.config.inference.views,
            provenance={
                "recipe": self.config.about.name,
                "recipe_changes": ", ".join(self.config.about.changes),
                "start": self.weights.origin,
                "epoch": str(progress.epoch),
                "seed": str(self.config.training.seed),
                "catalog": self.train_data.images.catalog.name,
                "catalog_sha256": self.catalog_sha256,
                "synthetic": str(self.train_data.images.catalog.synthetic).lower(),
            },
        )
