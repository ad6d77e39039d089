"""MODEL_CARD.md of a run: what the model is, what it is for, what it scored and where it may fail.

The sections follow Mitchell et al., Model Cards for Model Reporting, FAT* 2019. What is unknown is said to be
unknown; text from outside cannot break out of its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lentigo.core.config import Config
from lentigo.core.files import write_text_atomic
from lentigo.core.taxonomy import CLASSES
from lentigo.data.synthetic import SYNTHETIC_NOTICE
from lentigo.evaluation.card_facts import (
    CardFacts,
    Score,
    ScoreTable,
    SectionName,
    counts_text,
    preprocess_text,
    size_text,
)
from lentigo.evaluation.checklist import answer_checklists, checklist_section
from lentigo.evaluation.evaluate import Judgement
from lentigo.evaluation.markdown import plain, table
from lentigo.evaluation.report import RESEARCH_NOTICE, looks_text
from lentigo.evaluation.report_tables import KEY_NUMBERS
from lentigo.evaluation.subgroups import SKIN_TONE_STATEMENT
from lentigo.evaluation.wording import PLAIN, SHARE, count_text, interval_text, plural, value_text, value_with_interval
from lentigo.models.weights import origin_name

_RARE_LESIONS = 30
_UNKNOWN = "not known"
_NEVER_LISTED = ("about", "mining.parent")


def write_model_card(path: Path, facts: CardFacts) -> Path:
    """Write the card, atomically."""
    return write_text_atomic(path, model_card(facts))


def model_card(facts: CardFacts) -> str:
    """The card as Markdown; equal facts give equal text."""
    sections: Sequence[tuple[str, Callable[[CardFacts], str]]] = (
        ("Model details", _details),
        ("Intended use", lambda _: _INTENDED_USE),
        ("Factors", lambda _: _FACTORS),
        ("Metrics", _metrics),
        ("Evaluation data", _evaluation_data),
        ("Training data", _training_data),
        ("Training", _training),
        ("Quantitative analyses", _analyses),
        ("Ethical considerations", _ethics),
        ("Caveats", _caveats),
        ("How to repeat it", _repeat),
        ("Reporting checklists", lambda known: checklist_section(answer_checklists(known))),
    )
    notice = f"\n> **Synthetic data.** {SYNTHETIC_NOTICE}\n" if facts.catalog.synthetic else ""
    body = "\n".join(f"\n## {heading}\n\n{write(facts)}" for heading, write in sections)
    return f"# Model card: {plain(facts.name)}\n\n> {RESEARCH_NOTICE}\n{notice}\n{_summary(facts)}\n{body}\n"


def _summary(facts: CardFacts) -> str:
    """The answer first."""
    millions = facts.cost.parameters / 1e6
    what = f"The network {plain(facts.config.model.architecture)}, {millions:.2f} million parameters,"
    judged = facts.best_judgement
    if judged is None:
        return f"{what} was trained and not judged."
    score = judged.metrics["balanced_accuracy"]
    interval = interval_text(score)
    baseline = judged.majority_baseline
    return (
        f"{what} gives a dermoscopic image one of seven diagnoses. **Balanced accuracy {value_text(score.value)} "
        f"({f'95% interval {interval}' if interval else 'no interval'}) on "
        f"{plural(judged.n_images, f'{judged.split} image')} of {plural(judged.n_lesions, 'lesion')}**; always "
        f"answering {baseline.code.upper()} would score {value_text(baseline.balanced_accuracy)}."
    )


def _details(facts: CardFacts) -> str:
    config, cost = facts.config, facts.cost
    views = f", the mean logits of {config.inference.views} turned copies" if config.inference.views > 1 else ""
    correction = config.loss.prior_correction
    prior = f"; {correction:g} of the log class prior is taken off" if correction else ""
    rows = [
        ("made by", plain(f"Lentigo {facts.run_facts.get('lentigo') or '(version not known)'}, MIT licence")),
        ("network", f"{plain(config.model.architecture)}, {count_text(cost.parameters)} parameters"),
        ("cost of an answer", f"{cost.macs / 1e9:.3f} billion multiply-accumulates; weights {cost.float32_mb:.1f} MB"),
        ("input", f"one dermoscopic image. {preprocess_text(facts)}"),
        ("output", f"softmax of seven logits{views}{prior}; the answer is the most probable class"),
        ("start of the weights", plain(facts.start)),
        ("terms of that start", plain(facts.start_licence) or f"{_UNKNOWN}: ask where the file comes from"),
        ("terms of these weights", _weights_terms(facts)),
        ("people responsible", f"{_UNKNOWN} to the program"),
    ]
    classes = [(one.label_text, one.name, "malignant" if one.malignant else "benign") for one in CLASSES]
    return f"{table(('', ''), rows)}\n\n{table(('class', 'diagnosis', 'counts as'), classes)}"


def _weights_terms(facts: CardFacts) -> str:
    if facts.is_ham10000:
        return "trained on images under CC BY-NC 4.0: not for commercial use; the terms of the start hold as well"
    if facts.catalog.synthetic:
        return "trained on drawings, which set no terms; the terms of the start hold"
    return f"{_UNKNOWN}: those of the training images and of the start hold"


_INTENDED_USE = """- For research and teaching on how small networks classify dermoscopic images, by people who can
  judge such results.
- Out of scope: diagnosis, triage, screening, advice to patients, or any decision about a person, alone or as a second
  opinion; photographs without a dermatoscope; lesions on mucosa or nails; diagnoses other than the seven classes, which
  the model cannot tell it does not know; any use as a medical device. No authority has reviewed it."""

_FACTORS = """- Lesion and patient: class, age, sex, site of the body, skin tone. Skin tone is not recorded.
- Instrument: dermatoscope, camera, light, gel, resolution, compression. Not recorded per image.
- Surroundings: hair, rulers, ink, bubbles, dark corners, as far as they occur in the data."""


def _metrics(facts: CardFacts) -> str:
    judged = facts.best_judgement
    drawn = "" if judged is None else f" ({judged.interval}, {judged.resamples} resamples, seed {judged.seed})"
    return (
        "Balanced accuracy, the mean recall over the classes that have images, comes first: plain accuracy rewards "
        f"giving the most frequent answer. Intervals{drawn} are in brackets behind their value; images of one lesion "
        "are resampled together. They do not cover another clinic, camera or training seed. An undefined score is a "
        "dash, never 0 or 1."
    )


def _evaluation_data(facts: CardFacts) -> str:
    rows = [
        (split, size_text(images), counts_text(images)) for split, images in facts.splits.items() if split != "train"
    ]
    shares = {"age": facts.known_share("age_years"), "sex": facts.known_share("sex"), "site": facts.known_share("site")}
    known = ", ".join(f"{name} {value_text(share)}" for name, share in shares.items())
    shown = table(("split", "size", "classes"), rows) if rows else "No split was judged."
    return (
        f"{shown}\n\nOne image per lesion is judged. Known of the images trained on and judged: {known}. "
        f"{looks_text(facts.test_looks)}"
    )


def _training_data(facts: CardFacts) -> str:
    if facts.catalog.synthetic:
        origin = "Drawn by this program, with no terms of use."
    elif facts.is_ham10000:
        origin = (
            "HAM10000 (Tschandl, Rosendahl, Kittler, Scientific Data 5, 180161, 2018), licence CC BY-NC 4.0: "
            "dermoscopic images of a university clinic in Vienna and a practice in Queensland, collected over 20 years."
        )
    else:
        origin = f"The catalogue {plain(facts.catalog.name)}; its origin and licence are not known to the program."
    train = facts.splits["train"]
    repeats = "with" if facts.config.data.include_repeats else "without"
    return (
        f"{origin}\n\n{size_text(train)}, {repeats} repeat photographs of a lesion: {counts_text(train)}. Splits: "
        f"{', '.join(facts.config.data.train_splits)}. Digest of the rows (sha256): {facts.catalog.sha256[:16]}."
    )


def _training(facts: CardFacts) -> str:
    settings = [(f"`{key}`", plain(value)) for key, value in _changed_settings(facts.config).items()]
    listed = table(("setting", "value"), settings) if settings else "None."
    run = table(("", ""), [(plain(name), plain(value)) for name, value in facts.run_facts.items() if value])
    return f"{run}\n\nSettings that differ from the defaults; all are in config.toml:\n\n{listed}"


def _changed_settings(config: Config) -> dict[str, str]:
    """`section.key` -> value where it is not the default; files without their folders."""
    standard = Config().model_dump(mode="json")
    changed = {
        f"{section}.{key}": value
        for section, keys in config.model_dump(mode="json").items()
        for key, value in keys.items()
        if value != standard[section][key] and not f"{section}.{key}".startswith(_NEVER_LISTED)
    }
    for key in ("model.weights", "mining.fold_weights"):
        if key in changed:
            changed[key] = origin_name(changed[key])
    if "distillation.teachers" in changed:
        changed["distillation.teachers"] = len(changed["distillation.teachers"])
    return {key: ", ".join(map(str, one)) if isinstance(one, list) else str(one) for key, one in changed.items()}


def _analyses(facts: CardFacts) -> str:
    if not facts.judgements:
        return "The run was not judged."
    order = [facts.judgements[split] for split in ("test", "val") if split in facts.judgements]
    parts = [_overall(order), *(_per_class(one) for one in order)]
    parts += [_score_section(facts.sections[name]) for name in _SECTION_NAMES if name in facts.sections]
    missing = [name for name in _SECTION_NAMES if name not in facts.sections]
    if missing:
        parts.append(f"Not judged for this run: {', '.join(_SECTION_NAMES[name] for name in missing)}.")
    return "\n\n".join(parts)


_SECTION_NAMES: Mapping[SectionName, str] = {
    "malignant": "malignant or not at chosen thresholds",
    "calibration": "calibration",
    "uncertainty": "prediction sets and abstaining",
    "subgroups": "subgroups",
    "robustness": "corrupted images",
    "outliers": "images of other kinds",
    "explanation": "explanations",
}


def _overall(judged: Sequence[Judgement]) -> str:
    head = ["score", *(f"{one.split}, n {count_text(one.n_images)}" for one in judged)]
    rows = [
        [text, *(value_with_interval(one.metrics[name], kind) for one in judged)]
        for name, (text, kind) in KEY_NUMBERS.items()
    ]
    baselines = "; ".join(
        f"{one.split}: {one.majority_baseline.code.upper()}, accuracy {value_text(one.majority_baseline.accuracy)}, "
        f"balanced accuracy {value_text(one.majority_baseline.balanced_accuracy)}"
        for one in judged
    )
    return f"{table(head, rows)}\n\nAlways giving the most frequent answer scores: {baselines}."


def _per_class(judged: Judgement) -> str:
    rows = []
    for one in CLASSES:
        scores = judged.per_class[one.code]
        found = ((scores.recall, SHARE), (scores.precision, SHARE), (scores.f1, SHARE), (scores.auc, PLAIN))
        cells = [f"{value_with_interval(estimate, kind)}, n {count_text(estimate.n)}" for estimate, kind in found]
        rows.append([one.label_text, count_text(scores.n), *cells])
    head = ("class", "images", "recall", "precision", "F1", "AUC")
    return f"### Each class, {plain(judged.split)}\n\n{table(head, rows)}"


def _score_section(section: ScoreTable) -> str:
    rows = [_score_row(score) for score in section.scores]
    shown = table(("", "value", "n"), rows) if rows else ""
    return "\n\n".join(part for part in (f"### {plain(section.title)}", plain(section.text), shown) if part)


def _score_row(score: Score) -> tuple[str, str, str]:
    return plain(score.name), value_with_interval(score.found, score.kind), count_text(score.found.n)


def _ethics(facts: CardFacts) -> str:
    tone = "The images are drawn: they say nothing about people." if facts.catalog.synthetic else SKIN_TONE_STATEMENT
    return "\n".join(
        (
            f"- {tone}",
            "- A malignant lesion that is called benign may be treated too late; a benign one that is called malignant",
            "  may be cut out for nothing. Neither was weighed against the other by a clinician for this model.",
            "- The images show patients' skin. Whether they agreed to this use is a matter of the data's source.",
        )
    )


def _caveats(facts: CardFacts) -> str:
    judged = facts.best_judgement
    items = ["One source of images: another clinic, camera or population may bring much worse results."]
    items.append("One training: another seed gives another model; `lentigo compare` takes several.")
    if judged is not None:
        few = [one.label_text for one in CLASSES if judged.per_class[one.code].n_lesions < _RARE_LESIONS]
        if few:
            items.append(
                f"Fewer than {_RARE_LESIONS} {judged.split} lesions: {', '.join(few)}; intervals are uncertain."
            )
        if judged.split == "val" and facts.config.training.selection_metric != "last":
            items.append("Only val was judged, which also chose the epoch: its scores are a little too good.")
    if facts.config.preprocess.color_mode == "gray":
        items.append("The model sees no colour, which dermatologists rely on.")
    items.append("A probability is of use only for a mix of lesions like that of the evaluation data.")
    items.append("A lesion of none of the seven classes gets one of them nevertheless.")
    return "\n".join(f"- {item}" for item in items)


def _repeat(facts: CardFacts) -> str:
    verb = "train --config RUN/config.toml"
    if facts.config.mining.method != "none":
        verb = "mine PARENT --recipe RUN/config.toml"
    drawn = "The images are drawn by `lentigo data synth`. " if facts.catalog.synthetic else ""
    return (
        f"{drawn}On the run's own rows, with the images at their places:\n\n    lentigo {verb}\n"
        "    lentigo evaluate NEW_RUN\n\nSettings are in config.toml, rows and splits in catalog.csv, versions and "
        "commit in environment.json, scores in metrics.json. `lentigo report RUN` writes report and card again from "
        "the stored predictions, without the network."
    )
