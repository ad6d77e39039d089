"""The only loop over a data set without training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as distributed
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lentigo.core.predictions import Predictions
from lentigo.core.taxonomy import NUM_CLASSES
from lentigo.data.dataset import LesionDataset
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
    progress: Progress = lambda done, total: None,
) -> Predictions:
    """Logits of every row, in catalogue order. The network's mode is restored afterwards.

    With several processes, each takes every W-th row and all get the whole table: nothing padded, nothing twice.
    """
    if torch.device(device).type == "cpu":
        keep_freed_memory()
    rank, world_size = _place()
    indices = range(rank, len(dataset), world_size)
    loader = DataLoader(
        dataset, batch_size=batch_size, sampler=list(indices), num_workers=num_workers, collate_fn=_collate
    )
    was_training = network.training
    network.eval()
    logits = np.empty((len(indices), NUM_CLASSES), dtype=np.float32)
    done = 0
    with torch.inference_mode():
        for images in loader:
            batch = images.to(device, memory_format=torch.channels_last if channels_last else torch.contiguous_format)
            logits[done : done + len(batch)] = network(batch).float().cpu().numpy()
            done += len(batch)
            progress(min(done * world_size, len(dataset)), len(dataset))
    network.train(was_training)
    rows = dataset.images.catalog.rows
    return Predictions(
        tuple(row.image_id for row in rows),
        tuple(row.lesion_id for row in rows),
        dataset.images.catalog.labels,
        _gather(logits, len(dataset), world_size),
    )


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
