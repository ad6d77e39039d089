"""How items of the reporting checklists are answered from a run's facts: one function per question.

A rule never says more than the run shows; what only people know is left for the user.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from lentigo.core.taxonomy import CLASSES, MALIGNANT_LABELS
from lentigo.evaluation.card_facts import HISTOPATHOLOGY, CardFacts, counts_text, preprocess_text, size_text
from lentigo.evaluation.subgroups import SKIN_TONE_STATEMENT
from lentigo.evaluation.wording import value_text


class State(StrEnum):
    """How far an item is answered."""

    YES = "yes"
    PARTLY = "partly"
    NO = "no"
    NOT_KNOWN = "not known"
    NOT_APPLICABLE = "not applicable"
    USER = "to be filled in by the user"


@dataclass(frozen=True, slots=True)
class Reply:
    """What is said of an item: its state, a sentence or two, and the card section or file that shows it."""

    state: State
    text: str
    where: str = ""


_USER_KNOWS = "The program cannot know this of the catalogue"


def _image_kind(facts: CardFacts) -> Reply:
    if facts.catalog.synthetic:
        return Reply(State.YES, "Drawings of lesions, made by this program; no photographs.", "Training data")
    if facts.is_ham10000:
        return Reply(State.YES, "Dermoscopic photographs of pigmented lesions.", "Training data")
    return Reply(State.USER, f"{_USER_KNOWS} {facts.catalog.name}: say whether its images are dermoscopic.")


def _artefacts(facts: CardFacts) -> Reply:
    text = "Hair, rulers, ink and dark corners in the images are neither labelled nor removed."
    if "robustness" in facts.sections:
        return Reply(State.PARTLY, f"{text} Their effect was measured on corrupted copies.", "Robustness")
    return Reply(State.NO, text)


def _acquisition(facts: CardFacts) -> Reply:
    if facts.catalog.synthetic:
        return Reply(State.NOT_APPLICABLE, "The images are drawn.")
    if facts.is_ham10000:
        text = "The data's paper describes two sites with several devices, digitised slides among them; "
        return Reply(State.PARTLY, f"{text}which device took an image is not recorded.", "Training data")
    return Reply(State.USER, f"{_USER_KNOWS}: name cameras, settings and who took the images.")


def _preprocessing(facts: CardFacts) -> Reply:
    return Reply(State.YES, preprocess_text(facts), "Model details")


def _synthetic_images(facts: CardFacts) -> Reply:
    if facts.catalog.synthetic:
        return Reply(State.YES, "All images are drawn; lentigo data synth draws them again.", "Training data")
    return Reply(State.YES, "The catalogue declares none; training images are changed at random as stated.", "Training")


def _data_source(facts: CardFacts) -> Reply:
    if facts.catalog.synthetic:
        return Reply(State.YES, "Drawn by this program.", "Training data")
    if facts.is_ham10000:
        return Reply(State.YES, "HAM10000: Tschandl et al., Scientific Data 5, 180161, 2018.", "Training data")
    return Reply(State.USER, f"The catalogue is called {facts.catalog.name}: say where its images come from.")


def _patient_facts(facts: CardFacts) -> Reply:
    shares = {"age": facts.known_share("age_years"), "sex": facts.known_share("sex"), "site": facts.known_share("site")}
    known = ", ".join(f"{name} {value_text(share)}" for name, share in shares.items())
    if not any(shares.values()):
        return Reply(State.NO, "The images have neither age nor sex nor site.", "Evaluation data")
    patients = "" if facts.known_share("patient_id") else " Patients are not told apart."
    state = State.YES if min(shares.values()) > 0.9 and not patients else State.PARTLY
    return Reply(state, f"Known of the images: {known}.{patients}", "Evaluation data")


def _skin_tone(facts: CardFacts) -> Reply:
    if facts.catalog.synthetic:
        return Reply(State.NOT_APPLICABLE, "The images are drawn.")
    return Reply(State.NO, SKIN_TONE_STATEMENT, "Ethical considerations")


def _partitions(facts: CardFacts) -> Reply:
    if not any(row.has_lesion_id for row in facts.used):
        text = "The catalogue names no lesions, so every image counts as its own: copies across splits may be missed."
        return Reply(State.PARTLY, text, "catalog.csv")
    kinds = "lesion" + (", near-duplicate or patient group" if any(row.group_id for row in facts.used) else "")
    text = f"No {kinds} has images in two splits; this is checked whenever the run is read."
    return Reply(State.YES, text, "catalog.csv")


def _sample_sizes(facts: CardFacts) -> Reply:
    sizes = "; ".join(f"{split}: {size_text(rows)}" for split, rows in facts.splits.items())
    return Reply(State.YES, f"{sizes}.", "Training data, Evaluation data")


def _class_counts(facts: CardFacts) -> Reply:
    counts = "; ".join(f"{split}: {counts_text(rows)}" for split, rows in facts.splits.items())
    return Reply(State.YES, f"{counts}.", "Training data, Evaluation data")


def _other_images(facts: CardFacts) -> Reply:
    if "outliers" in facts.sections:
        return Reply(State.PARTLY, "A gate for images of other kinds was judged.", "Images of other kinds")
    return Reply(State.NO, "How the model takes images of other kinds was not judged for this run.")


def _labelling(facts: CardFacts) -> Reply:
    if facts.catalog.synthetic:
        return Reply(State.YES, "The label is the kind of lesion that was drawn.", "Training data")
    sources = facts.label_sources
    if not sources:
        return Reply(State.USER, f"{_USER_KNOWS}: say who made the diagnoses and how.")
    shares = ", ".join(f"{name} {value_text(count / len(facts.used))}" for name, count in sources.most_common())
    return Reply(
        State.PARTLY, f"Of the used images, labels rest on: {shares}. Who made them is not recorded.", "catalog.csv"
    )


def _histopathology(facts: CardFacts) -> Reply:
    if facts.catalog.synthetic:
        return Reply(State.NOT_APPLICABLE, "The images are drawn.")
    malignant = [row for row in facts.used if row.label in MALIGNANT_LABELS]
    proven = sum(row.dx_type == HISTOPATHOLOGY for row in malignant)
    if not facts.label_sources or not malignant:
        return Reply(State.USER, f"{_USER_KNOWS}: say how malignant diagnoses were proven.")
    share = value_text(proven / len(malignant))
    text = f"Of the used images of malignant classes, {share} have a histopathological label."
    return Reply(State.YES if proven == len(malignant) else State.PARTLY, text, "catalog.csv")


def _development(facts: CardFacts) -> Reply:
    chosen = "the last epoch was kept" if facts.config.training.selection_metric == "last" else "val chose the epoch"
    text = f"Recipe {facts.config.about.name}; every setting, seed and version is kept; {chosen}."
    return Reply(State.YES, text, "config.toml, environment.json")


def _augmentation(facts: CardFacts) -> Reply:
    return Reply(State.YES, "Evaluation is fixed; what is random in training has its ranges stated.", "Training")


def _performance(facts: CardFacts) -> Reply:
    judged = facts.best_judgement
    if judged is None:
        return Reply(State.NO, "The run was not judged.")
    text = f"Scores of {' and '.join(facts.judgements)}, each with n and 95% interval ({judged.interval})."
    return Reply(State.YES, text, "Quantitative analyses, metrics.json")


def _benchmark(facts: CardFacts) -> Reply:
    text = "Set beside the constant answer; lentigo compare tests it against other runs, not clinicians."
    return Reply(State.PARTLY, text, "Quantitative analyses")


def _group_bias(facts: CardFacts) -> Reply:
    if "subgroups" in facts.sections:
        return Reply(State.PARTLY, "Judged by the groups in the catalogue; skin tone is not among them.", "Subgroups")
    return Reply(State.NO, "Subgroups were not judged for this run.")


def _dates(facts: CardFacts) -> Reply:
    if facts.is_ham10000:
        return Reply(State.PARTLY, "Collected over 20 years, as the data's paper says; no date per image.")
    return _not_of_drawings(facts, "give the first and the last date of the images")


def _setting(facts: CardFacts) -> Reply:
    if facts.is_ham10000:
        text = "A university clinic in Vienna and a skin cancer practice in Queensland; not recorded per image."
        return Reply(State.PARTLY, text, "Training data")
    return _not_of_drawings(facts, "name the centres")


def _eligibility(facts: CardFacts) -> Reply:
    if facts.is_ham10000:
        return Reply(State.PARTLY, "The data's paper describes the choice; catalog.csv has the images used here.")
    return _not_of_drawings(facts, "say which patients and lesions were taken")


def _ethics(facts: CardFacts) -> Reply:
    if facts.is_ham10000:
        return Reply(State.USER, "The data's paper names the approvals of both sites; add that of your own study.")
    return _not_of_drawings(facts, "name the committee and its decision")


def _not_of_drawings(facts: CardFacts, wanted: str) -> Reply:
    if facts.catalog.synthetic:
        return Reply(State.NOT_APPLICABLE, "The images are drawn.")
    return Reply(State.USER, f"{_USER_KNOWS}: {wanted}.")


def _outcome(facts: CardFacts) -> Reply:
    codes = ", ".join(lesion_class.label_text for lesion_class in CLASSES)
    return Reply(State.YES, f"The lesion's diagnosis, one of {codes}, at the time of the image.", "Model details")


def _recalibration(facts: CardFacts) -> Reply:
    if "calibration" in facts.sections:
        return Reply(State.YES, "A temperature was fitted on val.", "Calibration")
    return Reply(State.NO, "The probabilities were not recalibrated.")


def _imbalance(facts: CardFacts) -> Reply:
    config = facts.config
    means = [f"sampling by {config.training.sampler} frequency"] if config.training.sampler != "none" else []
    means += [f"loss weights by {config.loss.class_weights} frequency"] if config.loss.class_weights != "none" else []
    means += ["a logit-adjusted loss"] if config.loss.kind == "logit_adjusted" else []
    means += [f"prior correction {config.loss.prior_correction:g}"] if config.loss.prior_correction else []
    text = f"Handled in training by {' and '.join(means)}." if means else "Nothing was done about it in training."
    return Reply(State.YES, f"{text} Balanced accuracy is reported first.", "Training")


def _output(facts: CardFacts) -> Reply:
    text = "Seven probabilities that sum to 1, and the class of the largest."
    if "malignant" in facts.sections:
        return Reply(State.YES, f"{text} Thresholds for malignant or not are stated.", "Malignant or not")
    return Reply(State.PARTLY, f"{text} No threshold for malignant or not was set.", "Model details")


def _data_access(facts: CardFacts) -> Reply:
    if facts.catalog.synthetic:
        return Reply(State.YES, "lentigo data synth draws the images again.", "How to repeat it")
    if facts.is_ham10000:
        return Reply(State.YES, "HAM10000 is public (CC BY-NC 4.0); rows and splits are in the run.", "Training data")
    return Reply(State.USER, f"{_USER_KNOWS}: say who gets the data, and how.")


def _code_access(facts: CardFacts) -> Reply:
    version = facts.run_facts.get("lentigo", "")
    text = f"Lentigo {version}, MIT licence." if version else "Lentigo, MIT licence; the version is not known."
    return Reply(State.YES if version else State.PARTLY, text, "How to repeat it")


RULES: Mapping[str, Callable[[CardFacts], Reply]] = {
    "image_kind": _image_kind,
    "artefacts": _artefacts,
    "acquisition": _acquisition,
    "preprocessing": _preprocessing,
    "synthetic_images": _synthetic_images,
    "data_source": _data_source,
    "patient_facts": _patient_facts,
    "skin_tone": _skin_tone,
    "partitions": _partitions,
    "sample_sizes": _sample_sizes,
    "class_counts": _class_counts,
    "other_images": _other_images,
    "labelling": _labelling,
    "histopathology": _histopathology,
    "development": _development,
    "augmentation": _augmentation,
    "performance": _performance,
    "benchmark": _benchmark,
    "group_bias": _group_bias,
    "dates": _dates,
    "setting": _setting,
    "eligibility": _eligibility,
    "ethics": _ethics,
    "outcome": _outcome,
    "recalibration": _recalibration,
    "imbalance": _imbalance,
    "output": _output,
    "data_access": _data_access,
    "code_access": _code_access,
}
"""The name of a rule in checklist.toml -> its function."""
