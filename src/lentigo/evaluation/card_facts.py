"""What the model card and the reporting checklists know about a run: one frozen object, read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from lentigo.core.config import Config
from lentigo.core.recipes import load_recipe
from lentigo.core.run_dir import RunDir
from lentigo.core.shipped import shipped_start
from lentigo.core.taxonomy import CLASSES, NUM_CLASSES
from lentigo.data.catalog import Catalog, Row
from lentigo.data.preprocess import Preprocess
from lentigo.evaluation.evaluate import Judgement
from lentigo.evaluation.metrics import Estimate
from lentigo.evaluation.wording import SHARE, count_text, plural
from lentigo.models.checkpoint import load_tensors
from lentigo.models.cost import Cost, architecture_cost
from lentigo.models.network import find_architecture
from lentigo.models.weights import START_KEY, origin_name
from lentigo.training.rows import build_preprocess, judged_rows, training_rows
from lentigo.training.run import read_catalog

SectionName = Literal["malignant", "calibration", "uncertainty", "subgroups", "robustness", "outliers", "explanation"]
HAM10000 = "ham10000"
"""A catalogue whose name begins so is taken for HAM10000 (Tschandl et al., Scientific Data 5, 180161, 2018)."""
HISTOPATHOLOGY = "histo"
"""The `dx_type` of a label that rests on histopathology, as HAM10000 writes it."""


@dataclass(frozen=True, slots=True)
class Score:
    """One line of a table; `kind` says how it is printed, SHARE or PLAIN."""

    name: str
    found: Estimate
    kind: str = SHARE


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Scores under a title, with what must be said beside them."""

    title: str
    scores: tuple[Score, ...]
    text: str = ""


@dataclass(frozen=True)
class CardFacts:
    """A judged run. `run_facts` are those of the report; `sections` hold what was judged beyond the classes.

    `start_licence`: terms of the starting weights, empty where they are not known.
    """

    name: str
    config: Config
    catalog: Catalog
    judgements: Mapping[str, Judgement]
    test_looks: int
    run_facts: Mapping[str, str]
    preprocess: Preprocess
    cost: Cost
    start_licence: str = ""
    sections: Mapping[SectionName, ScoreTable] = field(default_factory=dict)

    @property
    def is_ham10000(self) -> bool:
        """Whether the catalogue is called HAM10000."""
        return not self.catalog.synthetic and self.catalog.name.lower().startswith(HAM10000)

    @cached_property
    def splits(self) -> dict[str, Catalog]:
        """The rows that were trained on, and those of each judged split: what was not looked at is not described."""
        judged = {split: judged_rows(self.catalog, split) for split in ("val", "test") if split in self.judgements}
        return {"train": training_rows(self.catalog, self.config)} | judged

    @cached_property
    def used(self) -> tuple[Row, ...]:
        """All rows of `splits`."""
        return tuple(row for rows in self.splits.values() for row in rows)

    @property
    def start(self) -> str:
        """What the weights began as, without folders."""
        return self.run_facts.get("weights at start", origin_name(self.config.model.weights))

    @property
    def best_judgement(self) -> Judgement | None:
        """That of test where it was judged, else of val."""
        return self.judgements.get("test", self.judgements.get("val"))

    @cached_property
    def label_sources(self) -> Counter[str]:
        """Used images per `dx_type`, those without one left out."""
        return Counter(row.dx_type for row in self.used if row.dx_type)

    def known_share(self, column: Literal["age_years", "sex", "site", "patient_id"]) -> float:
        """Share of the used images for which a column is filled in, 0..1."""
        return sum(getattr(row, column) not in (None, "", "unknown") for row in self.used) / max(len(self.used), 1)


def preprocess_text(facts: CardFacts) -> str:
    """How an image becomes the network's input, in one sentence."""
    one = facts.preprocess
    colour = "gray (ITU-R 601 luma, stacked three times)" if one.color_mode == "gray" else "RGB"
    how = "without regard to the aspect ratio" if one.resize_rule == "squash" else "by the shorter side, then cropped"
    steps = ", then ".join(f"{size} x {size}" for size in one.resize_steps_px)
    mean, std = (" ".join(f"{number:.3g}" for number in numbers) for numbers in (one.mean, one.std))
    return (
        f"Turned upright by EXIF, converted to {colour}, resized to {steps} pixels ({one.interpolation}, {how}), "
        f"scaled to 0..1, normalised (mean {mean}, std {std})."
    )


def counts_text(rows: Catalog) -> str:
    """`NV 670, MEL 97, ...`: images per class, the most frequent first."""
    counts = sorted(zip(rows.class_counts, CLASSES, strict=True), key=lambda one: -one[0])
    return ", ".join(f"{lesion_class.label_text} {count_text(int(count))}" for count, lesion_class in counts)


def size_text(rows: Catalog) -> str:
    """`1000 images of 1000 lesions`."""
    lesions = len({row.lesion_id for row in rows})
    return f"{plural(len(rows), 'image')} of {plural(lesions, 'lesion')}"


def read_card_facts(
    run: RunDir,
    *,
    judgements: Mapping[str, Judgement],
    run_facts: Mapping[str, str],
    sections: Mapping[SectionName, ScoreTable] | None = None,
) -> CardFacts:
    """The facts of a run folder.

    Raises:
        CheckpointError: where rows or starting weights are damaged.
        MissingExtraError: for a timm network without timm.
    """
    config = load_recipe(str(run.config))
    architecture, views = config.model.architecture, config.inference.views
    preprocess = build_preprocess(config, find_architecture(architecture))
    return CardFacts(
        name=run.path.resolve().name,
        config=config,
        catalog=read_catalog(run),
        judgements=judgements,
        test_looks=len(run.read_looks()),
        run_facts=run_facts,
        preprocess=preprocess,
        cost=architecture_cost(architecture, preprocess.input_size_px, NUM_CLASSES, views),
        start_licence=_start_licence(config),
        sections=sections or {},
    )


def _start_licence(config: Config) -> str:
    """What is known of the terms of the starting weights; empty where nothing is."""
    weights = config.model.weights
    if weights == "none":
        return "none needed: the weights began at random"
    if weights == "imagenet":
        return (
            "ImageNet weights of the library that built the network, under its terms; ImageNet's own terms limit "
            "its images to non-commercial research"
        )
    if shipped_start(weights) is not None:
        return f"CC BY-NC 4.0, as the weights of the model {weights} that comes with the program"
    if not weights.endswith(".safetensors") or not Path(weights).is_file():
        return ""
    metadata = load_tensors(Path(weights))[1]
    start, model = metadata.get(START_KEY), metadata.get("lentigo")
    if isinstance(start, dict):
        return str(start.get("licence_note", ""))
    if isinstance(model, dict) and (origin := model.get("provenance", {}).get("start")):
        return f"those of a model of Lentigo's own training, and of what that began with: {origin}"
    return ""
