"""An exported graph, ready to run: the only place that knows onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lentigo.core.errors import CheckpointError, ConfigError
from lentigo.deploy.exported import FEATURE_MAP_NAME, INPUT_NAME, LOGITS_NAME, MODEL_FILE, OUTLIER_NAME

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

CHUNK_IMAGES = 4
"""Images that pass through the graph at once. More are no faster (a core's cache is full) and take ten times the memory
at 32: onnxruntime keeps what the largest chunk took. Giving it back after each doubles the time of large chunks."""
_ERRORS_ONLY = 3


@dataclass(frozen=True, slots=True)
class GraphSession:
    """Any number of threads may run it at once, on pixels (N, S, S, 3) uint8; the memory is the same for any N > 0."""

    session: InferenceSession

    @classmethod
    def open(cls, graph: bytes, name: str, *, threads: int | None = None, side_px: int | None = None) -> GraphSession:
        """Build a session on the CPU from the bytes of an ONNX file; `threads` None: all cores of this process.

        `side_px`: of the squares that the model's `preprocess` makes, where the graph has to take these.

        Raises:
            CheckpointError: where the bytes are no graph with the inputs and outputs of `lentigo.deploy.exported`, or
                it takes squares of another side.
        """
        import onnxruntime  # 0.1 s, which commands that load no model need not wait for

        options = onnxruntime.SessionOptions()
        # Not left to onnxruntime: it counts the machine's cores, and pins threads to some that a container lacks.
        options.intra_op_num_threads = usable_cores() if threads is None else threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        # Idle threads would spin on the cores that decode the next images.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = _ERRORS_ONLY
        try:
            session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions have no common base
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(f"{name} cannot be loaded by onnxruntime: {reason}", _AGAIN) from None
        inputs, outputs = ({one.name for one in found} for found in (session.get_inputs(), session.get_outputs()))
        if inputs != {INPUT_NAME} or not {LOGITS_NAME, FEATURE_MAP_NAME} <= outputs:
            raise CheckpointError(
                f"{name}: expected the input {INPUT_NAME} and the outputs {LOGITS_NAME} and {FEATURE_MAP_NAME}; "
                f"found {', '.join(sorted(inputs))} and {', '.join(sorted(outputs))}",
                _AGAIN,
            )
        _check_side(session.get_inputs()[0].shape, name, side_px)
        return cls(session)

    @property
    def has_distances(self) -> bool:
        """Whether the graph says how far an image is from the training images."""
        return any(one.name == OUTLIER_NAME for one in self.session.get_outputs())

    def logits(self, pixels: NDArray[np.uint8], *, views: int = 1) -> NDArray[np.float32]:
        """(N, 7): the mean over so many views."""
        return _mean([self._run((LOGITS_NAME,), view)[0] for view in image_views(pixels, views)])

    def judge(self, pixels: NDArray[np.uint8], *, views: int = 1) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`logits` and, of the images as they are, `outlier_distances`, for a graph that has these."""
        plain, *others = image_views(pixels, views)
        logits, distances = self._run((LOGITS_NAME, OUTLIER_NAME), plain)
        return _mean([logits, *(self._run((LOGITS_NAME,), view)[0] for view in others)]), distances

    def feature_maps(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, D, H, W)."""
        return self._run((FEATURE_MAP_NAME,), pixels)[0]

    def outlier_distances(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N,), of a graph that has this output."""
        return self._run((OUTLIER_NAME,), pixels)[0]

    def _run(self, outputs: Sequence[str], pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        chunks = (pixels[start : start + CHUNK_IMAGES] for start in range(0, len(pixels), CHUNK_IMAGES))
        found = [self.session.run(outputs, {INPUT_NAME: np.ascontiguousarray(chunk)}) for chunk in chunks]
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def _mean(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = np.mean(parts, axis=0, dtype=np.float32)
    return mean


_AGAIN = "Export the run again with `lentigo export RUN`."


def _check_side(shape: Sequence[int | str | None], name: str, side_px: int | None) -> None:
    """`shape` is that of the graph's input; a dimension that may have any size has a name or None there."""
    sides = [side for side in shape[1:3] if isinstance(side, int)]
    if side_px is not None and any(side != side_px for side in sides):
        raise CheckpointError(
            f"{name} takes images of {' x '.join(map(str, sides))} px; expected {side_px} x {side_px}, the last of "
            f"preprocess.resize_steps_px in {MODEL_FILE}",
            _AGAIN,
        )


def check_threads(threads: int | None) -> None:
    """Raise ConfigError for a number of threads below 1; None stands for all cores."""
    if threads is not None and threads < 1:
        raise ConfigError(f"expected 1 thread or more; found {threads}", "Leave it out to use all cores.")


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def image_views(pixels: NDArray[np.uint8], count: int) -> Iterator[NDArray[np.uint8]]:
    """Squares (N, S, S, 3), then mirrored, upside down and both, then all of these with rows and columns swapped.

    The views of `lentigo.training.inference`, in the same order.
    """
    for number in range(count):
        axes = tuple(axis for bit, axis in ((1, 2), (2, 1)) if number & bit)
        view = np.flip(pixels, axes) if axes else pixels
        yield view.swapaxes(1, 2) if number & 4 else view
