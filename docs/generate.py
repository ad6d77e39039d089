"""Write docs/reference.md from the code: every command with its options, every recipe key, every exit code.

python docs/generate.py
"""

from __future__ import annotations

from pathlib import Path

import typer

from lentigo.cli.app import app
from lentigo.core.config import all_keys, load_recipe, recipe_names
from lentigo.core.errors import ExitCode

REFERENCE = Path(__file__).parent / "reference.md"

EXIT_CODES = {
    ExitCode.OK: "done",
    ExitCode.BUG: "a bug in Lentigo; the traceback is printed",
    ExitCode.USAGE: "wrong option, recipe key or missing package",
    ExitCode.DATA: "data, weights or runs that cannot be used as they are",
    ExitCode.GATE: "a quality gate failed",
    ExitCode.INTERRUPTED: "stopped by Ctrl-C or SIGTERM; the state was saved",
}


def reference() -> str:
    """The whole page as Markdown."""
    parts = ["# Reference", "", "Written by `python docs/generate.py` from the code.", ""]
    parts += ["## Commands", "", *_commands(typer.main.get_command(app), "lentigo")]
    parts += ["## Exit codes", "", "| code | meaning |", "|---|---|"]
    parts += [f"| {int(code)} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    parts += ["", "## Recipes", "", "| recipe | source | cost | expected |", "|---|---|---|---|"]
    for name in recipe_names():
        about = load_recipe(name).about
        parts.append(f"| `{about.name}` | {about.source} | {about.cost} | {about.expected} |")
    parts += ["", "## Recipe keys", "", "| key | type | default | meaning |", "|---|---|---|---|"]
    for key, (kind, default, meaning) in all_keys().items():
        parts.append(f"| `{key}` | {kind.replace('|', '/')} | `{default}` | {meaning} |")
    return "\n".join(parts) + "\n"


def _commands(command, path: str) -> list[str]:  # type: ignore[no-untyped-def]
    """Markdown of a command, or of all commands of a group."""
    if getattr(command, "commands", None):
        return [line for name, child in command.commands.items() for line in _commands(child, f"{path} {name}")]
    lines = [f"### `{path}`", "", _unfold(command.help or ""), ""]
    options = [parameter for parameter in command.params if parameter.name != "help"]
    if options:
        lines += ["| argument or option | meaning |", "|---|---|"]
        for parameter in options:
            is_argument = parameter.param_type_name == "argument"
            name = parameter.name.upper() if is_argument else ", ".join([*parameter.opts, *parameter.secondary_opts])
            default = "" if parameter.default in (None, False, ()) or parameter.required else f" Default {parameter.default}."
            lines.append(f"| `{name}` | {getattr(parameter, 'help', None) or ''}{default} |")
        lines.append("")
    return lines


def _unfold(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


if __name__ == "__main__":
    REFERENCE.write_text(reference(), encoding="utf-8")
