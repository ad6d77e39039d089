"""Programs for phones beside the ONNX graphs: what model.json and parity.json say of them.

They take one image at a time: `pixels` (1, S, S, 3), and give `logits` (1, 7) and `feature_map` (1, D, H, W), float32,
as the fp32 graph does, but no `outlier_distance`. Calibration, thresholds and golden logits of that graph hold for them
too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lentigo.evaluation.wording import plural

PhoneTarget = Literal["executorch", "coreml"]
PhoneNames: Mapping[PhoneTarget, str] = {"executorch": "ExecuTorch", "coreml": "Core ML"}
PhoneFiles: Mapping[PhoneTarget, str] = {"executorch": "model.pte", "coreml": "model.mlpackage"}
"""The file, or for Core ML the folder, of each."""


class PhoneProgram(BaseModel):
    """One program in model.json. `files`: path in the export -> sha256; `made_with`: package and version.

    `pixels`: the type of the input's numbers, which are 0..255 in either.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    files: dict[str, str]
    size_bytes: int
    pixels: Literal["uint8", "float32"]
    made_with: str


class PhoneParity(BaseModel):
    """One program in parity.json: largest differences of a logit to torch's.

    Both are None where the program could not be run here; `reason` then says why, and `n_images` (of val) is 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: PhoneTarget
    runtime: str
    size_bytes: int
    n_images: int
    max_logit_difference: float | None
    golden_difference: float | None
    reason: str = ""


def phone_notes(phones: Iterable[PhoneParity]) -> list[str]:
    """One sentence a program, for the table of an export."""
    return [_note(one) for one in phones]


def _note(one: PhoneParity) -> str:
    what = f"{PhoneNames[one.target]}: {PhoneFiles[one.target]}, {one.size_bytes / 1e6:.2f} MB, one image at a time, "
    if one.max_logit_difference is None or one.golden_difference is None:
        return f"{what}made with {one.runtime}, {one.reason}."
    return (
        f"{what}run by {one.runtime}: logits within {one.max_logit_difference:.2g} of torch's on "
        f"{plural(one.n_images, 'val image')}, and {one.golden_difference:.2g} on the golden inputs."
    )
