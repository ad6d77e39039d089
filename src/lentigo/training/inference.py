"""The only loop over a data set without training: for logits, or for features."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.distributed as distributed
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lentigo.core.predictions import Predictions
from lentigo.core.taxonomy import NUM_CLASSES
from lentigo.data.dataset import LesionDataset
from lentigo.models.features import logits_and_features, pooled_features
from lentigo.training.allocator import keep_freed_memory

Progress = Callable[[int, int], None]


def predict_logits(
    network: nn.Module,
    dataset: LesionDataset,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    num_workers: int = 0,
    channels_last: bool = True,
    views: int = 1,
    progress: Progress = lambda done, total: None,
) -> Predictions:
    """Logits of every row, in catalogue order. The network's mode is restored afterwards.

    `views` of 2, 4 or 8 give the mean logits over mirrored, flipped and quarter-turned copies of each image.

    With several processes, each takes every W-th row and all get the whole table: nothing padded, nothing twice.
    """
    rank, world_size = _place()
    logits = _forward(
        lambda batch: torch.stack([network(view).float() for view in _views(batch, views)]).mean(dim=0),
        network,
        dataset,
        range(rank, len(dataset), world_size),
        device=device,
        batch_size=batch_size,
        num_workers=num_workers,
        channels_last=channels_last,
        progress=lambda done: progress(min(done * world_size, len(dataset)), len(dataset)),
    )
    return _table(dataset, _gather(logits, len(dataset), world_size))


def predict_with_features(
    network: nn.Module, dataset: LesionDataset, *, device: torch.device | str = "cpu", batch_size: int = 64
) -> tuple[Predictions, NDArray[np.float32]]:
    """What `predict_logits` of one view and `extract_features` give, from one pass, by this process alone."""
    found = _forward(
        lambda batch: torch.cat(logits_and_features(network, batch), dim=1).float(),
        network,
        dataset,
        range(len(dataset)),
        device=device,
        batch_size=batch_size,
    )
    logits, features = np.split(found, [NUM_CLASSES], axis=1)
    return _table(dataset, np.ascontiguousarray(logits)), np.ascontiguousarray(features)


def extract_features(
    network: nn.Module, dataset: LesionDataset, *, device: torch.device | str = "cpu", batch_size: int = 64
) -> NDArray[np.float32]:
    """Pooled features (N, D) of every row, in catalogue order, by this process alone."""
    return _forward(
        lambda batch: pooled_features(network, batch).float(),
        network,
        dataset,
        range(len(dataset)),
        device=device,
        batch_size=batch_size,
    )


def _forward(
    function: Callable[[Tensor], Tensor],
    network: nn.Module,
    dataset: LesionDataset,
    indices: range,
    *,
    device: torch.device | str,
    batch_size: int,
    num_workers: int = 0,
    channels_last: bool = True,
    progress: Callable[[int], None] = lambda done: None,
) -> NDArray[np.float32]:
    """What `function` makes of each indexed image, stacked; `network` is in evaluation mode meanwhile."""
    if torch.device(device).type == "cpu":
        keep_freed_memory()
    loader = DataLoader(
        dataset, batch_size=batch_size, sampler=list(indices), num_workers=num_workers, collate_fn=_collate
    )
    layout = torch.channels_last if channels_last else torch.contiguous_format
    was_training = network.training
    network.eval()
    parts: list[NDArray[np.float32]] = [np.empty((0, NUM_CLASSES), np.float32)] if not len(indices) else []
    done = 0
    with torch.inference_mode():
        for images in loader:
            parts.append(function(images.to(device, memory_format=layout)).cpu().numpy())
            done += len(images)
            progress(done)
    network.train(was_training)
    return np.concatenate(parts)


def _table(dataset: LesionDataset, logits: NDArray[np.float32]) -> Predictions:
    rows = dataset.images.catalog.rows
    return Predictions(
        tuple(row.image_id for row in rows),
        tuple(row.lesion_id for row in rows),
        dataset.images.catalog.labels,
        logits,
    )


def _views(images: Tensor, count: int) -> Iterator[Tensor]:
    """The images (N, 3, S, S), then mirrored, upside down and both, then all of these with rows and columns swapped."""
    for number in range(count):
        axes = [axis for bit, axis in ((1, 3), (2, 2)) if number & bit]
        view = images.flip(axes) if axes else images
        yield view.transpose(2, 3) if number & 4 else view


def _collate(samples: list[tuple[Tensor, int, int]]) -> Tensor:
    return torch.stack([sample[0] for sample in samples])


def _place() -> tuple[int, int]:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _gather(own: NDArray[np.float32], total: int, world_size: int) -> NDArray[np.float32]:
    if world_size == 1:
        return own
    parts: list[NDArray[np.float32]] = [own] * world_size
    distributed.all_gather_object(parts, own)
    merged = np.empty((total, own.shape[1]), dtype=own.dtype)
    for rank, part in enumerate(parts):
        merged[rank::world_size] = part
    return merged
