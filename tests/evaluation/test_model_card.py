"""The model card and the checklists say what the run shows, admit what is unknown, and stay text."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch

from lentigo.core.files import write_text_atomic
from lentigo.core.predictions import Predictions
from lentigo.core.recipes import load_recipe
from lentigo.core.run_dir import RunDir
from lentigo.core.taxonomy import CLASS_CODES, MALIGNANT_LABELS
from lentigo.data.catalog import Catalog, Row
from lentigo.evaluation.card_facts import CardFacts, Score, ScoreTable, read_card_facts
from lentigo.evaluation.checklist import answer_checklists, checklist_rows, count_states
from lentigo.evaluation.checklist_rules import RULES, State
from lentigo.evaluation.evaluate import judge
from lentigo.evaluation.metrics import Estimate
from lentigo.evaluation.model_card import model_card, write_model_card
from lentigo.evaluation.report import RESEARCH_NOTICE
from lentigo.models.checkpoint import save_tensors
from lentigo.models.cost import Cost
from lentigo.models.network import find_architecture
from lentigo.models.weights import START_KEY
from lentigo.training.rows import build_preprocess

EVIL = "<script>|`*_x_*`|[a](http://b)<!--\n# c"
SPLITS = ("train", "train", "val", "test")


def catalog(name="ham10000", synthetic=False, count=280, **columns):
    """Every class in every split; malignant labels rest on histopathology, the others on follow-up."""
    known = {"age_years": 40.0, "sex": "female", "site": "back"} | columns
    rows = tuple(
        Row(
            f"i{i}",
            Path(f"/secret/folder/i{i}.jpg"),
            label := i // 4 % 7,
            f"l{i}",
            dx_type="histo" if label in MALIGNANT_LABELS else "follow_up",
            split=SPLITS[i % 4],
        )
        for i in range(count)
    )
    return Catalog(tuple(replace(row, **known) for row in rows), name, synthetic)


def judged(split, rows, synthetic=False):
    picked = [row for row in rows if row.split == split]
    labels = np.array([row.label for row in picked], dtype=np.int64)
    logits = np.random.default_rng(0).normal(size=(len(labels), 7)).astype(np.float32)
    logits[np.arange(len(labels)), labels] += 2.0
    names = tuple(row.image_id for row in picked)
    return judge(Predictions(names, names, labels, logits), split=split, resamples=50, synthetic=synthetic)


def facts_of(rows, *, splits=("val",), overrides=(), **changes):
    config = load_recipe("paper-v2", overrides)
    values = {
        "name": "a-run",
        "config": config,
        "catalog": rows,
        "judgements": {split: judged(split, rows, rows.synthetic) for split in splits},
        "test_looks": 1 if "test" in splits else 0,
        "run_facts": {"recipe": "paper-v2", "lentigo": "0.1.0 abc"},
        "preprocess": build_preprocess(config, find_architecture("mobilenet_v2")),
        "cost": Cost(2_232_839, 300_000_000, 9.1, 4.5),
    }
    return CardFacts(**(values | changes))


@pytest.fixture(scope="module")
def ham():
    return facts_of(catalog())


SECTIONS = {
    "subgroups": ScoreTable("Subgroups, val", (Score("sex: female", Estimate(0.7, 0.6, 0.8, 35)),), "No skin tone."),
    "malignant": ScoreTable("Malignant or not, val", (Score("AUC", Estimate(0.9, 0.85, 0.95, 30), "plain"),)),
    "calibration": ScoreTable("Calibration", (), "Temperature 1.5."),
    "robustness": ScoreTable("Corrupted images", (Score("hair", Estimate(None, None, None, 0)),)),
    "outliers": ScoreTable("Images of other kinds", ()),
}


def section_of(card, heading):
    return re.split(r"\n## ", card.split(f"\n## {heading}\n")[1])[0]


def test_card_answers_first_and_has_mitchells_sections(ham):
    card = model_card(ham)
    assert card.startswith(f"# Model card: a-run\n\n> {RESEARCH_NOTICE}\n")
    assert re.search(r"\*\*Balanced accuracy [\d.]+% \(95% interval [\d.]+–[\d.]+\) on 70 val images of 70 les", card)
    wanted = [
        "Model details",
        "Intended use",
        "Factors",
        "Metrics",
        "Evaluation data",
        "Training data",
        "Quantitative analyses",
        "Ethical considerations",
        "Caveats",
        "How to repeat it",
    ]
    headings = re.findall(r"^## (.*)$", card, re.MULTILINE)
    assert [heading for heading in headings if heading in wanted] == wanted


def test_every_score_has_interval_and_n(ham):
    table = section_of(model_card(ham), "Quantitative analyses").split("### Each class, val")[1]
    for code in CLASS_CODES:
        row = next(line for line in table.splitlines() if line.startswith(f"| {code.upper()} |"))
        assert len(re.findall(r"\((?:[\d.]+–[\d.]+)\), n \d+", row)) >= 3, row


def test_equal_facts_give_equal_text(ham, tmp_path):
    path = write_model_card(tmp_path / "MODEL_CARD.md", ham)
    assert path.read_text(encoding="utf-8") == model_card(ham) == model_card(facts_of(catalog()))


@pytest.mark.parametrize(
    "rows", [catalog(), catalog("drawn", synthetic=True), catalog("mine", age_years=None, sex="", site="", dx_type="")]
)
@pytest.mark.parametrize("sections", [{}, SECTIONS])
def test_no_placeholder_is_left(rows, sections):
    card = model_card(facts_of(rows, splits=("val", "test"), sections=sections))
    assert not re.findall(r"\b(None|nan|TODO|TBD|N/A)\b|\.\.\.|\{|\}", card)
    assert "/secret" not in card
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in card.splitlines() if line.startswith("|")]
    assert min(widths) >= 3


def test_unknown_is_said_to_be_unknown():
    card = model_card(facts_of(catalog("mine", dx_type=""), run_facts={}))
    assert "its origin and licence are not known to the program" in card
    assert "version not known" in card
    assert "people responsible | not known" in card
    assert "CC BY-NC" not in card


def test_ham10000_brings_its_licence_and_limits(ham):
    card = model_card(ham)
    assert card.count("CC BY-NC 4.0") >= 2
    assert "skin tone" in section_of(card, "Ethical considerations")


def test_drawings_say_so_and_claim_nothing():
    card = model_card(facts_of(catalog("ham10000", synthetic=True)))
    assert "**Synthetic data.**" in card
    assert "CC BY-NC" not in card
    assert "Vienna" not in card


def test_test_rows_are_described_only_where_they_were_judged(ham):
    assert "| test |" not in section_of(model_card(ham), "Evaluation data")
    assert "The test split has not been looked at." in model_card(ham)
    seen = model_card(facts_of(catalog(), splits=("val", "test")))
    assert "| test | 70 images of 70 lesions |" in section_of(seen, "Evaluation data")
    assert re.search(r"on 70 test images", seen)
    assert "looked at once" in seen


def test_caveats_name_rare_classes_and_a_flattered_val(ham):
    caveats = section_of(model_card(ham), "Caveats")
    assert "Fewer than 30 val lesions: AKIEC, BCC, BKL, DF, MEL, NV, VASC" in caveats
    assert "also chose the epoch" in caveats
    last = facts_of(catalog(), overrides=["training.selection_metric=last", "preprocess.color_mode=rgb"])
    assert "also chose the epoch" not in model_card(last)
    assert "no colour" in caveats
    assert "no colour" not in model_card(last)


def test_sections_are_shown_and_absent_ones_named(ham):
    card = model_card(replace(ham, sections=SECTIONS))
    assert "| sex: female | 70.0% (60.0–80.0) | 35 |" in card
    assert "| AUC | 0.900 (0.850–0.950) | 30 |" in card
    assert "| hair | – | 0 |" in card
    assert card.index("### Malignant or not, val") < card.index("### Subgroups, val")
    assert "Not judged for this run: prediction sets and abstaining, explanations." in card
    assert "Not judged for this run: malignant" in model_card(ham)


def test_settings_leave_folders_out():
    overrides = ["model.weights=/secret/start.safetensors", "distillation.teachers=['/secret/a','/secret/b']"]
    overrides += ["distillation.weight=0.5", "mining.parent=/secret/parent"]
    training = section_of(model_card(facts_of(catalog(), overrides=overrides)), "Training")
    assert "| `model.weights` | start.safetensors |" in training
    assert "| `distillation.teachers` | 2 |" in training
    assert "secret" not in training


def test_text_from_outside_stays_text(ham):
    evil = facts_of(
        catalog(EVIL),
        name=EVIL,
        start_licence=EVIL,
        run_facts={EVIL: EVIL},
        sections={"outliers": ScoreTable(EVIL, (), EVIL)},
    )
    card = model_card(evil)
    assert not re.findall(r"(?<!\\)<(?!br)", card)
    assert "\n# c" not in card
    assert "](http" not in card.replace(r"\]", "")
    rows = checklist_rows(answer_checklists(evil))
    assert "<script" not in rows
    assert "&lt;script&gt;" in rows


def test_checklists_have_all_their_items(ham):
    answers = answer_checklists(ham)
    numbers = {name: [one.number for one in answers if one.checklist == name] for name in ("CLEAR Derm", "TRIPOD+AI")}
    assert numbers["CLEAR Derm"] == [str(number) for number in range(1, 26)]
    assert list(dict.fromkeys(int(re.match(r"\d+", one)[0]) for one in numbers["TRIPOD+AI"])) == list(range(1, 28))
    assert len(set(numbers["TRIPOD+AI"])) == len(numbers["TRIPOD+AI"])
    assert sum(count_states(answers).values()) == len(answers)
    assert all(one.topic and one.reply.text and one.source for one in answers)


def test_every_rule_is_used_and_every_item_has_one_answer():
    content = tomllib.loads(resources.files("lentigo.evaluation").joinpath("checklist.toml").read_text("utf-8"))
    items = [item for checklist in content["checklist"] for item in checklist["item"]]
    assert {item["rule"] for item in items if "rule" in item} == set(RULES)
    assert all(("rule" in item) != ("state" in item and "text" in item) for item in items)


def states(facts):
    return {f"{one.checklist} {one.number}": one.reply.state for one in answer_checklists(facts)}


def test_answers_follow_the_facts(ham):
    bare, full = states(ham), states(replace(ham, sections=SECTIONS))
    assert bare["CLEAR Derm 23"] == State.NO
    assert full["CLEAR Derm 23"] == State.PARTLY
    assert (bare["TRIPOD+AI 12f"], full["TRIPOD+AI 12f"]) == (State.NO, State.YES)
    assert (bare["TRIPOD+AI 15"], full["TRIPOD+AI 15"]) == (State.PARTLY, State.YES)
    assert bare["CLEAR Derm 8"] == full["CLEAR Derm 8"] == State.NO
    assert bare["TRIPOD+AI 18a"] == State.USER
    mine = states(facts_of(catalog("mine", dx_type="")))
    assert mine["CLEAR Derm 1"] == mine["CLEAR Derm 16"] == mine["TRIPOD+AI 18e"] == State.USER


def test_histopathology_is_counted(ham):
    def reply(rows):
        return next(one.reply for one in answer_checklists(facts_of(rows)) if one.topic.startswith("Histopathology"))

    assert reply(catalog()).state == State.YES
    half = catalog()
    changed = tuple(replace(row, dx_type="consensus") if row.split == "val" else row for row in half)
    found = reply(Catalog(changed, half.name))
    assert found.state == State.PARTLY
    assert "66.7%" in found.text
    assert reply(catalog(dx_type="")).state == State.USER


def test_missing_lesion_ids_weaken_the_splits():
    assert states(facts_of(catalog(has_lesion_id=False)))["CLEAR Derm 10"] == State.PARTLY


def test_checklist_rows_are_sound_html(ham):
    class Rows(HTMLParser):
        def __init__(self, text):
            super().__init__()
            self.open, self.count = [], 0
            self.feed(text)

        def handle_starttag(self, tag, attributes):
            self.open.append(tag)
            self.count += tag == "tr"

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    answers = answer_checklists(ham)
    page = Rows(checklist_rows(answers))
    assert not page.open
    assert page.count == len(answers) + 2


def make_run(folder, rows, overrides=()):
    run = RunDir(folder / "a-run")
    write_text_atomic(run.config, load_recipe("paper-v2", overrides).to_toml())
    rows.to_csv(run.catalog)
    digest = Catalog(rows.rows, "catalog").sha256
    write_text_atomic(run.catalog_digest, f"{digest}\n")
    write_text_atomic(run.environment, '{"catalog": "ham10000"}')
    return run


def test_facts_are_read_from_a_run_without_its_weights(tmp_path):
    start = tmp_path / "start.safetensors"
    save_tensors(start, {"x": torch.zeros(1)}, {START_KEY: {"licence_note": "teachers MIT"}})
    rows = catalog()
    run = make_run(tmp_path, rows, [f"model.weights={start}"])
    found = read_card_facts(run, judgements={"val": judged("val", rows)}, run_facts={"recipe": "paper-v2"})
    assert found.name == "a-run"
    assert found.is_ham10000
    assert found.start_licence == "teachers MIT"
    assert found.cost.parameters == 2_232_839
    assert found.preprocess.resize_steps_px == (300, 224)
    assert "teachers MIT" in model_card(found)


@pytest.mark.parametrize(
    ("weights", "known"), [("none", "began at random"), ("imagenet", "non-commercial"), ("/gone/x.safetensors", "")]
)
def test_terms_of_the_start(weights, known, tmp_path):
    rows = catalog()
    run = make_run(tmp_path, rows, [f"model.weights={weights}"])
    found = read_card_facts(run, judgements={}, run_facts={})
    assert known in found.start_licence
    assert bool(known) == bool(found.start_licence)
    assert "was trained and not judged" in model_card(found)


def test_start_from_a_model_of_our_own_names_what_that_began_with(tmp_path):
    start = tmp_path / "best.safetensors"
    save_tensors(start, {"x": torch.zeros(1)}, {"lentigo": {"provenance": {"start": "v2.safetensors"}}})
    run = make_run(tmp_path, catalog(), [f"model.weights={start}"])
    found = read_card_facts(run, judgements={}, run_facts={})
    assert found.start_licence.endswith("what that began with: v2.safetensors")
