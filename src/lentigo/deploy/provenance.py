"""Where an exported model comes from, and on what terms its weights may be used."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from lentigo import __version__
from lentigo.core.environment import describe_environment, package_version
from lentigo.core.run_dir import RunDir
from lentigo.evaluation.card_facts import CardFacts, read_card_facts
from lentigo.evaluation.markdown import plain
from lentigo.evaluation.model_card import model_card
from lentigo.evaluation.run_metrics import read_object
from lentigo.evaluation.run_records import read_judgements
from lentigo.evaluation.run_report import read_run_facts
from lentigo.models.checkpoint import ModelSpec
from lentigo.training.run import read_catalog

_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")


def read_facts(run: RunDir) -> CardFacts:
    """What the model card knows of a run, without what was judged beyond the classes."""
    return read_card_facts(run, judgements=read_judgements(run), run_facts=read_run_facts(run, read_catalog(run)))


def weights_licence(facts: CardFacts) -> str:
    """Terms of the weights in one line: those of the training images, and those of the start as far as known."""
    if facts.is_ham10000:
        images = "weights: CC BY-NC 4.0 (trained on HAM10000)"
    elif facts.catalog.synthetic:
        images = "weights: no terms by the training images, which are drawings"
    else:
        images = "weights: not known to the program (terms of the training images)"
    start = facts.start_licence or "not known to the program"
    return f"{images}; start of the weights, {facts.start}: {start}"


def describe_provenance(run: RunDir, spec: ModelSpec, facts: CardFacts, *, checkpoint: str) -> dict[str, str]:
    """What model.json says of the origin: run, recipe, data, seed, commands, commits, versions, time in UTC."""
    environment = describe_environment()
    trained = facts.run_facts
    training = read_object(run.environment, "Restore it.").get("command", ()) if run.environment.is_file() else ()
    return {
        "run": facts.name,
        "checkpoint": checkpoint,
        "recipe": spec.provenance.get("recipe", facts.config.about.name),
        "recipe_changes": spec.provenance.get("recipe_changes", ""),
        "start": facts.start,
        "epoch": spec.provenance.get("epoch", ""),
        "seed": spec.provenance.get("seed", str(facts.config.training.seed)),
        "data": facts.catalog.name,
        "catalog_sha256": facts.catalog.sha256,
        "trained_with": trained.get("lentigo", ""),
        "trained_by": command_text(training),
        "lentigo": __version__,
        "commit": str(environment["commit"]),
        "exported_by": command_text(environment["command"]),
        "exported_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **{name: package_version(name) or "" for name in _PACKAGES},
    }


def command_text(argv: Sequence[str]) -> str:
    """A command line as it can be typed elsewhere: files are named without the folders of one machine."""
    return shlex.join(_without_folders(part) for part in argv)


def _without_folders(part: str) -> str:
    key, equals, value = part.rpartition("=")
    return f"{key}{equals}{Path(value).name}" if Path(value).is_absolute() else part


def card_text(run: RunDir, facts: CardFacts, section: str, licence: str) -> str:
    """The run's model card, or one made of its facts where it has none, with the section of the export at its end."""
    card = run.model_card.read_text(encoding="utf-8") if run.model_card.is_file() else model_card(facts)
    return f"{card.rstrip()}\n\n{section}\nTerms: {plain(licence)}\n"
