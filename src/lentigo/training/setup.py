"""What a training starts from: a network with its first weights, decoded images, and checks before either."""

from __future__ import annotations

import os

import torch
from lightning_fabric import Fabric
from torch import nn

from lentigo.core.config import Config
from lentigo.core.errors import ConfigError
from lentigo.core.seeding import derive_seed
from lentigo.core.taxonomy import NUM_CLASSES
from lentigo.data.cache import ImageSource, open_images
from lentigo.data.catalog import Catalog
from lentigo.data.preprocess import Preprocess
from lentigo.models.network import build_network, find_architecture, set_batch_norm_momentum
from lentigo.models.weights import WeightsReport, load_weights, origin_name
from lentigo.training.events import Decoding, Listener, Message

NETWORK_STRIDE_PX = 32


def check_batch(config: Config, fabric: Fabric) -> None:
    """BatchNorm cannot train on one value per channel: one image whose last feature map is a single pixel."""
    training, size_px = config.training, config.preprocess.resize_steps_px[-1]
    if training.small_epochs:
        size_px = training.small_size_px
    alone = training.batch_size <= fabric.world_size and size_px <= NETWORK_STRIDE_PX
    if alone and config.model.batch_norm != "frozen":
        raise ConfigError(
            f"one image of {size_px} px a process leaves BatchNorm a single value per channel",
            "Raise training.batch_size, use larger images (preprocess.resize_steps_px, training.small_size_px), or "
            "pass model.batch_norm=frozen.",
        )


def describe_rows(catalog: Catalog, train: Catalog, val: Catalog, config: Config) -> str:
    """One line on what is trained and judged, and on what is left out."""
    excluded = len(set(config.data.exclude_images))
    left_out = len(catalog.split(*config.data.train_splits)) - len(train) - excluded
    repeats = f", {left_out} left out as not primary (data.include_repeats)" if left_out > 0 else ""
    repeats += f", {excluded} excluded by name (data.exclude_images)" if excluded else ""
    drawn = "; drawn images, not patients" if catalog.synthetic else ""
    return f"training on {len(train)} images{repeats}; validating on {len(val)}, one a lesion{drawn}"


def start_network(
    config: Config, fabric: Fabric, catalog: Catalog, listen: Listener, *, resuming: bool
) -> tuple[nn.Module, WeightsReport]:
    """The network as the recipe starts it; `resuming` leaves out weights that a saved state replaces."""
    model, architecture = config.model, find_architecture(config.model.architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.training.seed, "init"))
        network = build_network(model.architecture, NUM_CLASSES, model.dropout)
    report = WeightsReport(origin_name(model.weights))
    if not resuming:
        report = load_weights(network, model.architecture, architecture, model.weights)
        listen(Message(str(report)))
        if report.trained_on not in ("", catalog.sha256):
            listen(
                Message(
                    "caution: these weights were trained on other rows; "
                    "where those share lesions with this val or test split, its scores are too good"
                )
            )
    if model.batch_norm_momentum is not None:
        set_batch_norm_momentum(network, model.batch_norm_momentum)
    if model.batch_norm == "sync" and fabric.world_size > 1:
        if fabric.device.type != "cuda":
            raise ConfigError("model.batch_norm = sync works on GPUs only", "Pass model.batch_norm=train or frozen.")
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    if config.training.channels_last:
        network = network.to(memory_format=torch.channels_last)
    return network, report


def open_both(
    train: Catalog, val: Catalog, preprocess: Preprocess, config: Config, listen: Listener
) -> tuple[ImageSource, ImageSource]:
    """Training and validation images within one limit, of which each process of this machine takes its share."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    left_bytes = config.data.cache_limit_mb * 2**20 // processes

    def open_within(catalog: Catalog) -> ImageSource:
        return open_images(
            catalog, preprocess, config.data, lambda done, total: listen(Decoding(done, total)), limit_bytes=left_bytes
        )

    train_images = open_within(train)
    left_bytes -= train_images.cached.nbytes
    return train_images, open_within(val)
