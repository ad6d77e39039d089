"""The seven lesion classes: code, name, order and every alias that data sets use for them.

Order and meaning follow HAM10000 (Tschandl et al., Scientific Data 5, 180161, 2018); MedMNIST's
DermaMNIST numbers its labels in the same order. This is the only place that knows class names.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from lentigo.core.errors import DataError


@dataclass(frozen=True, slots=True)
class LesionClass:
    """One class. `code` is lower case; `malignant` groups MEL, BCC and AKIEC (AKIEC includes in-situ carcinoma)."""

    code: str
    name: str
    malignant: bool
    aliases: tuple[str, ...] = ()

    @property
    def label_text(self) -> str:
        """The upper-case code that tables and figures print."""
        return self.code.upper()


CLASSES: tuple[LesionClass, ...] = (
    LesionClass(
        "akiec",
        "Actinic keratosis / intraepithelial carcinoma",
        True,
        (
            "ak",
            "actinic keratosis",
            "actinic keratoses",
            "bowen",
            "bowen's disease",
            "intraepithelial carcinoma",
        ),
    ),
    LesionClass("bcc", "Basal cell carcinoma", True, ("basal cell carcinoma",)),
    LesionClass(
        "bkl",
        "Benign keratosis-like lesion",
        False,
        (
            "benign keratosis",
            "seborrheic keratosis",
            "sebk",
            "sk",
            "solar lentigo",
            "lichen planus-like keratosis",
            "pigmented benign keratosis",
        ),
    ),
    LesionClass("df", "Dermatofibroma", False, ("dermatofibroma",)),
    LesionClass("mel", "Melanoma", True, ("melanoma",)),
    LesionClass(
        "nv",
        "Melanocytic nevus",
        False,
        ("nevus", "naevus", "nevi", "melanocytic nevus", "melanocytic nevi", "melanocytic naevus"),
    ),
    LesionClass("vasc", "Vascular lesion", False, ("vascular lesion", "vascular lesions", "angioma", "hemangioma")),
)
CLASS_CODES: tuple[str, ...] = tuple(lesion_class.code for lesion_class in CLASSES)
NUM_CLASSES = len(CLASSES)
MALIGNANT_LABELS: tuple[int, ...] = tuple(i for i, lesion_class in enumerate(CLASSES) if lesion_class.malignant)
MELANOMA_LABEL = CLASS_CODES.index("mel")
ISIC_2018_COLUMNS: tuple[str, ...] = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
"""Column order of the ISIC 2018 Task 3 ground truth and submissions."""

_LABELS: dict[str, int] = {
    alias: label
    for label, lesion_class in enumerate(CLASSES)
    for alias in (lesion_class.code, lesion_class.name.lower(), *lesion_class.aliases)
}


def _normalise(name: str) -> str:
    return " ".join(name.strip().lower().replace("_", " ").split())


def find_label(name: str) -> int | None:
    """The label (0..6) of a class code, name or alias in any case, or None where it is unknown."""
    return _LABELS.get(_normalise(name))


def suggest_class(name: str) -> str | None:
    """The class code whose alias is most like `name`, or None."""
    matches = difflib.get_close_matches(_normalise(name), _LABELS, n=1, cutoff=0.6)
    return CLASSES[_LABELS[matches[0]]].code if matches else None


def parse_label(name: str) -> int:
    """The label (0..6) of a class code, name or alias.

    Raises:
        DataError: where the name is unknown, with the nearest known code.
    """
    label = find_label(name)
    if label is not None:
        return label
    suggestion = suggest_class(name)
    hint = f"did you mean {suggestion!r}? " if suggestion else ""
    raise DataError(
        f"unknown class {name!r}; the classes are {', '.join(CLASS_CODES)}",
        f"{hint}Rename the class, or remove its images.",
    )
