"""Write the page's facts.js from the code: classes, questions, limits of quality, colours of heat.

python tools/web_facts.py
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lentigo.core.files import write_text_atomic
from lentigo.core.taxonomy import CLASSES
from lentigo.data.quality import LIMITS
from lentigo.deploy.activation_map import color
from lentigo.evaluation.clinical import QUESTIONS
from lentigo.evaluation.delong import TASKS

FACTS_FILE = Path(__file__).parents[1] / "src" / "lentigo" / "deploy" / "web" / "facts.js"
HEAT_STOPS = 5
"""Colours of heat are straight lines between as many."""


def facts() -> dict[str, Any]:
    """Name of a constant -> its plain value."""
    return {
        "CLASSES": [{"code": one.code, "name": one.name, "malignant": one.malignant} for one in CLASSES],
        "QUESTIONS": {question: list(TASKS[task]) for question, task in QUESTIONS.items()},
        "QUALITY_LIMITS": {name: asdict(limits) for name, limits in LIMITS.items()},
        "HEAT_COLORS": color(np.linspace(0, 1, HEAT_STOPS, dtype=np.float32)).tolist(),
    }


def facts_script() -> str:
    """The text of facts.js."""
    constants = [f"export const {name} = {json.dumps(value, indent=2)};" for name, value in facts().items()]
    return "\n\n".join(["// Written by tools/web_facts.py from the Python code: do not edit.", *constants]) + "\n"


if __name__ == "__main__":
    print(write_text_atomic(FACTS_FILE, facts_script()))
