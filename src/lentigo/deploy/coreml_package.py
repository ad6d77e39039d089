"""A network as a Core ML package for iOS and macOS; it can be made on any system, and run on macOS alone.

Weights and arithmetic are float32: with Core ML's default of half precision no logit can be held to 1e-4.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lentigo.core.environment import package_version
from lentigo.core.errors import ConfigError, MissingExtraError
from lentigo.core.taxonomy import NUM_CLASSES
from lentigo.deploy.exported import FEATURE_MAP_NAME, INPUT_NAME, LOGITS_NAME, NOTICE
from lentigo.deploy.onnx_graph import PixelGraph
from lentigo.deploy.phone_record import PhoneFiles
from lentigo.models.checkpoint import ModelSpec

NOT_VERIFIED = "not verified: Core ML runs only on macOS"
_PARTS = ("Manifest.json", "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin")
"""All of a package that Core ML reads; coremltools may add notes for debuggers."""


def require_coreml() -> None:
    """Raise MissingExtraError without the package coremltools."""
    if find_spec("coremltools") is None:
        raise MissingExtraError("coremltools", "coreml")


def can_run() -> bool:
    """Whether this system can run a package."""
    return sys.platform == "darwin"


def convert_package(network: nn.Module, spec: ModelSpec) -> dict[PurePosixPath, bytes]:
    """Path within the package -> content: pixels (1, S, S, 3) float32, 0..255, to logits and feature map (float32).

    The pixels are float32 because Core ML's arrays have no unsigned bytes. iOS 16, macOS 13 or newer.

    Raises:
        ConfigError: where the installed coremltools cannot convert this network.
        MissingExtraError: without coremltools.
    """
    require_coreml()
    size = spec.preprocess.input_size_px
    pixels = torch.zeros((1, size, size, 3))
    # coremltools tells the terminal about every other package, and draws a bar a step.
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        import coremltools

        program = torch.export.export(PixelGraph(network, spec).eval(), (pixels,), strict=False)
        try:
            model = coremltools.convert(
                program.run_decompositions({}),
                inputs=[coremltools.TensorType(INPUT_NAME, shape=tuple(pixels.shape), dtype=np.float32)],
                outputs=[coremltools.TensorType(name, dtype=np.float32) for name in (LOGITS_NAME, FEATURE_MAP_NAME)],
                convert_to="mlprogram",
                minimum_deployment_target=coremltools.target.iOS16,
                compute_precision=coremltools.precision.FLOAT32,
                skip_model_load=True,
            )
        except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                f"coremltools {package_version('coremltools')} with torch {torch.__version__} cannot convert "
                f"{spec.architecture}: {first}",
                "Try a newer coremltools, or export to onnx or executorch: both run on iOS.",
            ) from None
        model.short_description = NOTICE
        with tempfile.TemporaryDirectory() as folder:
            package = Path(folder) / PhoneFiles["coreml"]
            model.save(str(package))
            return {PurePosixPath(part): (package / part).read_bytes() for part in _PARTS}


class PackageSession:
    """A package opened by Core ML on the processor; macOS alone."""

    def __init__(self, files: Mapping[PurePosixPath, bytes]) -> None:
        import coremltools

        self._folder = tempfile.TemporaryDirectory()  # goes with the session
        package = Path(self._folder.name) / PhoneFiles["coreml"]
        for path, content in files.items():
            (package / path).parent.mkdir(parents=True, exist_ok=True)
            (package / path).write_bytes(content)
        # The graphics processor and the neural engine compute with fewer digits than the gate asks for.
        self._model = coremltools.models.MLModel(str(package), compute_units=coremltools.ComputeUnit.CPU_ONLY)

    def logits(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits (N, 7) of finished squares (N, S, S, 3), one after the other."""
        found = np.empty((len(squares), NUM_CLASSES), np.float32)
        for number, square in enumerate(squares):
            found[number] = self._model.predict({INPUT_NAME: square[None].astype(np.float32)})[LOGITS_NAME][0]
        return found
