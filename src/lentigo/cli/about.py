"""`lentigo runs`, `config` and `doctor`: what there is, and whether it works."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lentigo.cli import console
from lentigo.cli.options import JsonFlag, Overrides, RunsDir


def runs(runs_dir: RunsDir = Path("runs"), as_json: JsonFlag = False) -> None:
    """List the runs: state, epoch, best validation score.

    `lentigo runs`
    """
    from lentigo.core.run_dir import list_runs

    found = [{"run": str(run.path), **run.read_status()} for run in list_runs(runs_dir)]

    def lines() -> None:
        if not found:
            console.say(f"no runs in {runs_dir}; start one with `lentigo train` or `lentigo demo`")
            return
        keys = ("run", "state", "epoch", "epochs", "best_epoch", "best_score", "synthetic", "message")
        console.print_table(keys, [[console.cell(facts.get(key)) for key in keys] for facts in found])

    console.result({"runs": found}, as_json, lines)


def show_config(
    recipe: Annotated[str | None, typer.Argument(help="Recipe name or file to print, resolved.")] = None,
    overrides: Overrides = None,
    keys: Annotated[bool, typer.Option("--keys", help="List every key with type, default and meaning.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the recipes, print one resolved, or list every key.

    `lentigo config`

    `lentigo config quick --set training.epochs=4`

    `lentigo config --keys`
    """
    from lentigo.core.recipes import all_keys, load_recipe, recipe_names

    if keys:
        table = all_keys()
        console.result(
            {key: dict(zip(("type", "default", "meaning"), facts, strict=True)) for key, facts in table.items()},
            as_json,
            lambda: console.print_table(("key", "type", "default", "meaning"), [(k, *v) for k, v in table.items()]),
        )
    elif recipe is not None:
        config = load_recipe(recipe, overrides or [])
        console.result(config.model_dump(mode="json"), as_json, lambda: print(config.to_toml(), end=""))
    else:
        about = [load_recipe(name).about for name in recipe_names()]
        console.result(
            {"recipes": [facts.model_dump() for facts in about]},
            as_json,
            lambda: console.print_table(
                ("recipe", "source", "cost", "expected"),
                [(a.name, a.source, a.cost, a.expected) for a in about],
            ),
        )


def doctor(as_json: JsonFlag = False) -> None:
    """Check the installation: versions, extras, device, memory, cache.

    `lentigo doctor`
    """
    from lentigo.doctor import examine

    findings = examine()
    console.result(
        {"checks": [finding._asdict() for finding in findings]},
        as_json,
        lambda: console.print_table(
            ("check", "state", "found"), [(f.check, "ok" if f.ok else "missing", f.found) for f in findings]
        ),
    )
