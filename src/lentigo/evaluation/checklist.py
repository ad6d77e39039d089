"""Two reporting checklists, answered from a run's facts as far as a program can know them.

CLEAR Derm for image-based AI in dermatology, TRIPOD+AI for prediction models; the items, in our own few words, are
in checklist.toml, the rules in `checklist_rules`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from html import escape
from importlib import resources
from typing import Any

from lentigo.evaluation.card_facts import CardFacts
from lentigo.evaluation.checklist_rules import RULES, Reply, State
from lentigo.evaluation.markdown import plain, table


@dataclass(frozen=True, slots=True)
class Answer:
    """One item of a checklist with its reply."""

    checklist: str
    source: str
    number: str
    topic: str
    reply: Reply


def answer_checklists(facts: CardFacts) -> tuple[Answer, ...]:
    """Every item of both checklists in their order; what was said before is referred to."""
    content = tomllib.loads(resources.files(__package__).joinpath("checklist.toml").read_text(encoding="utf-8"))
    answers: list[Answer] = []
    said: dict[Reply, str] = {}
    for checklist in content["checklist"]:
        for item in checklist["item"]:
            reply, place = _reply(item, facts), f"{checklist['name']} {item['number']}"
            if reply in said:
                reply = replace(reply, text=f"As {said[reply]}.")
            said.setdefault(reply, place)
            answers.append(Answer(checklist["name"], checklist["source"], item["number"], item["topic"], reply))
    return tuple(answers)


def _reply(item: Mapping[str, Any], facts: CardFacts) -> Reply:
    if "rule" in item:
        return RULES[item["rule"]](facts)
    state = State.USER if item["state"] == "user" else State(item["state"])
    return Reply(state, item["text"], item.get("where", ""))


def count_states(answers: tuple[Answer, ...]) -> dict[State, int]:
    """Number of items per state, those that occur, in the order of `State`."""
    found = {state: sum(answer.reply.state == state for answer in answers) for state in State}
    return {state: count for state, count in found.items() if count}


def checklist_table(answers: tuple[Answer, ...]) -> str:
    """Both checklists as a folded table of the report, after a count of the answers."""
    return (
        f"<p>Answered by the program from what the run holds: {escape(_counts_text(answers))}.</p>"
        f"<details><summary>All {len(answers)} items</summary>"
        '<table class="texts-table"><caption>Items of both checklists, in our words</caption>'
        '<thead><tr><th scope="col">Item</th><th scope="col">Answered</th><th scope="col">How</th></tr></thead>'
        f"{checklist_rows(answers)}</table></details>"
    )


def _counts_text(answers: tuple[Answer, ...]) -> str:
    return ", ".join(f"{state} {count}" for state, count in count_states(answers).items())


def checklist_rows(answers: tuple[Answer, ...]) -> str:
    """Table rows of the report, `<tbody>` per checklist; everything is escaped."""
    bodies = []
    for name, source in dict.fromkeys((answer.checklist, answer.source) for answer in answers):
        rows = "".join(_row(answer) for answer in answers if answer.checklist == name)
        head = f'<tr><th scope="rowgroup" colspan="3">{escape(name)}<span class="sub">{escape(source)}</span></th></tr>'
        bodies.append(f"<tbody>{head}{rows}</tbody>")
    return "".join(bodies)


def _row(answer: Answer) -> str:
    reply = answer.reply
    where = f'<span class="sub">{escape(reply.where)}</span>' if reply.where else ""
    return (
        f'<tr><th scope="row">{escape(answer.number)} {escape(answer.topic)}</th>'
        f"<td>{escape(reply.state)}</td><td>{escape(reply.text)}{where}</td></tr>"
    )


def checklist_section(answers: tuple[Answer, ...]) -> str:
    """Both checklists as Markdown tables, after a count of the answers."""
    parts = [f"Answered by the program from what the run holds. Of {len(answers)} items: {_counts_text(answers)}."]
    for name, source in dict.fromkeys((answer.checklist, answer.source) for answer in answers):
        rows = [
            (answer.number, plain(answer.topic), answer.reply.state, _reply_text(answer))
            for answer in answers
            if answer.checklist == name
        ]
        parts.append(f"### {plain(name)}\n\nAfter {plain(source)}.\n\n{table(('', 'item', 'answered', 'how'), rows)}")
    return "\n\n".join(parts)


def _reply_text(answer: Answer) -> str:
    where = f" ({plain(answer.reply.where)})" if answer.reply.where else ""
    return plain(answer.reply.text) + where
