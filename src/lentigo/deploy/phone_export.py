"""The programs for phones of an export: each made, run beside the network, through the gate of fp32 or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from lentigo.core.environment import package_version
from lentigo.deploy.coreml_package import NOT_VERIFIED, PackageSession, can_run, convert_package, require_coreml
from lentigo.deploy.executorch_program import ProgramSession, lower_program, require_executorch
from lentigo.deploy.export_source import ExportSource
from lentigo.deploy.int8 import Progress
from lentigo.deploy.parity import max_difference, require_fp32
from lentigo.deploy.phone_record import PhoneFiles, PhoneNames, PhoneParity, PhoneProgram, PhoneTarget
from lentigo.deploy.squares import squares_of
from lentigo.deploy.variants import golden_logits


@dataclass(frozen=True)
class MadePhone:
    """A program that may be written. `files`: path in the export -> content."""

    files: Mapping[PurePosixPath, bytes]
    program: PhoneProgram
    parity: PhoneParity


class _Session(Protocol):
    def logits(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, 7) of (N, S, S, 3)."""


def phone_targets(targets: Sequence[str]) -> tuple[PhoneTarget, ...]:
    """Those of the targets that are programs for phones.

    Raises:
        MissingExtraError: without the package that one of them needs.
    """
    chosen = tuple(target for target in PhoneNames if target in targets)
    if "executorch" in chosen:
        require_executorch()
    if "coreml" in chosen:
        require_coreml()
    return chosen


def make_phones(
    source: ExportSource, targets: Sequence[PhoneTarget], progress: Progress
) -> dict[PhoneTarget, MadePhone]:
    """Every target's program, judged on all of val and the golden inputs where this system can run it.

    Raises:
        ConfigError: for a network that cannot be converted.
        ExportError: where a logit differs from torch's by more than fp32's may.
    """
    makers = {"executorch": _make_executorch, "coreml": _make_coreml}
    made = {}
    for target in targets:
        progress(f"{PhoneNames[target]} program", 0, 1)
        made[target] = makers[target](source, progress)
    return made


def write_phones(folder: Path, made: Mapping[PhoneTarget, MadePhone]) -> None:
    """Write the files of all programs into an export."""
    for one in made.values():
        for path, content in one.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)


def _make_executorch(source: ExportSource, progress: Progress) -> MadePhone:
    content = lower_program(source.network, source.spec)
    files = {PurePosixPath(PhoneFiles["executorch"]): content}
    made_with = f"executorch {package_version('executorch')}"
    return _judge(source, "executorch", files, "uint8", made_with, ProgramSession(content), progress)


def _make_coreml(source: ExportSource, progress: Progress) -> MadePhone:
    parts = convert_package(source.network, source.spec)
    files = {PurePosixPath(PhoneFiles["coreml"]) / path: content for path, content in parts.items()}
    made_with = f"coremltools {package_version('coremltools')}"
    return _judge(source, "coreml", files, "float32", made_with, PackageSession(parts) if can_run() else None, progress)


def _judge(
    source: ExportSource,
    target: PhoneTarget,
    files: Mapping[PurePosixPath, bytes],
    pixels: Literal["uint8", "float32"],
    made_with: str,
    session: _Session | None,
    progress: Progress,
) -> MadePhone:
    """Through the gate, or with the reason why that is not possible here (`session` None)."""
    size = sum(len(content) for content in files.values())
    parity = PhoneParity(
        target=target,
        runtime=made_with,
        size_bytes=size,
        n_images=0,
        max_logit_difference=None,
        golden_difference=None,
        reason=NOT_VERIFIED,
    )
    if session is not None:
        parity = parity.model_copy(
            update={
                "n_images": len(source.val),
                "max_logit_difference": _val_difference(source, target, session, progress),
                "golden_difference": _golden_difference(source, target, session),
                "reason": "",
            }
        )
    program = PhoneProgram(
        file=PhoneFiles[target],
        files={str(path): hashlib.sha256(content).hexdigest() for path, content in files.items()},
        size_bytes=size,
        pixels=pixels,
        made_with=made_with,
    )
    return MadePhone(files, program, parity)


def _val_difference(source: ExportSource, target: PhoneTarget, session: _Session, progress: Progress) -> float:
    """The largest on val, one image in memory at a time."""
    found = np.empty_like(source.torch_logits)
    for row in range(len(source.val)):
        found[row] = session.logits(squares_of(source.val, [row]))[0]
        progress(f"{PhoneNames[target]} on val", row + 1, len(source.val))
    difference = max_difference(found, source.torch_logits)
    require_fp32(difference, len(found), "val images", graph=PhoneNames[target])
    return difference


def _golden_difference(source: ExportSource, target: PhoneTarget, session: _Session) -> float:
    squares, expected = golden_logits(source)
    difference = max_difference(session.logits(squares), expected)
    require_fp32(difference, len(squares), "golden inputs", graph=PhoneNames[target])
    return difference
