"""Recipes in TOML and overrides with `--set a.b=c` -> one resolved `Config`.

A wrong key or value names the nearest right one.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from lentigo.core.config import Config
from lentigo.core.errors import ConfigError

NO_CHANGE = {"model.weights", "training.seed", "training.time_limit_min", "training.checkpoint_min"}
"""Keys that every user sets and that records name on their own: setting them leaves a recipe what it is."""


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    folder = resources.files("lentigo.training") / "recipes"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Config:
    """A recipe by name, or a TOML file, with `section.key=value` overrides applied in order.

    Raises:
        ConfigError: for an unknown recipe, key or value; all problems at once, with the nearest right key.
    """
    return parse_config(_read_recipe(name_or_path, overrides), name_or_path)


def merge_recipe(base: Config, name_or_path: str, overrides: Sequence[str] = ()) -> Config:
    """`base` with the keys that a recipe and the overrides state in their place; `about` is the recipe's.

    Raises:
        ConfigError: as `load_recipe`.
    """
    stated = _read_recipe(name_or_path, overrides)
    parse_config(stated, name_or_path)
    values = base.model_dump() | {"about": {}}
    for section, keys in stated.items():
        values[section] |= keys
    return parse_config(values, name_or_path)


def _read_recipe(name_or_path: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The stated values of a recipe, unchecked."""
    if name_or_path in recipe_names():
        text = (resources.files("lentigo.training") / "recipes" / f"{name_or_path}.toml").read_text("utf-8")
    elif Path(name_or_path).is_file():
        try:
            text = Path(name_or_path).read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError) as error:
            raise ConfigError(f"cannot read the recipe {name_or_path}: {error}", "Pass a TOML text file.") from None
    else:
        near = difflib.get_close_matches(name_or_path, recipe_names(), n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"no recipe {name_or_path!r}: neither a file nor one of {', '.join(recipe_names())}",
            f"{hint}Pass one of these names or the path of a TOML file.",
        )
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name_or_path} is not valid TOML: {error}", "Correct that line.") from None
    for override in overrides:
        _apply_override(values, override)
    _note_changes(values, overrides)
    return values


def parse_config(values: Mapping[str, Any], origin: str) -> Config:
    """Validate nested values; ConfigError lists every problem."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = [_describe(dict(problem)) for problem in error.errors()]
        raise ConfigError(
            f"{origin}: {len(problems)} wrong settings: {'; '.join(problems[:5])}"
            + (f"; and {len(problems) - 5} more" if len(problems) > 5 else ""),
            "Correct them; `lentigo config --keys` lists every key with its range and meaning.",
        ) from None


def all_keys() -> dict[str, tuple[str, str, str]]:
    """Every key as `section.key` -> (type, default, description)."""
    keys: dict[str, tuple[str, str, str]] = {}
    for section_name, section in Config.model_fields.items():
        section_type = section.annotation
        assert isinstance(section_type, type)
        assert issubclass(section_type, BaseModel)
        for key, field in section_type.model_fields.items():
            schema = section_type.model_json_schema()["properties"][key]
            keys[f"{section_name}.{key}"] = (_type_text(schema), str(field.default), field.description or "")
    return keys


def _type_text(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(_type_text(option) for option in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type_text(schema.get('items', schema.get('prefixItems', [{}])[0]))}"
    bounds = [
        f"{sign} {schema[name]}"
        for name, sign in (
            ("minimum", ">="),
            ("exclusiveMinimum", ">"),
            ("maximum", "<="),
            ("exclusiveMaximum", "<"),
        )
        if name in schema
    ]
    return " ".join([str(schema.get("type", "any")), ", ".join(bounds)]).strip()


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    key = key.strip()
    if not separator or key.count(".") != 1:
        raise ConfigError(f"--set takes section.key=value; found {override!r}", "For example --set training.epochs=4")
    if key not in all_keys():
        raise ConfigError(f"--set {key}: no such key{_did_you_mean(key)}", "`lentigo config --keys` lists every key.")
    section, _, name = key.partition(".")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    target = values.setdefault(section, {})
    if not isinstance(target, dict):
        raise ConfigError(f"[{section}] must be a table; found {target!r}", f"Write a section [{section}].")
    target[name] = value


def _note_changes(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """A changed recipe says so wherever its name is shown."""
    keys = {override.partition("=")[0].strip() for override in overrides} - NO_CHANGE
    about = values.get("about", {})
    if keys and isinstance(about, dict) and isinstance(known := about.get("changes", []), list):
        values["about"] = about | {"changes": sorted({*known, *keys})}


def _did_you_mean(key: str) -> str:
    near = difflib.get_close_matches(key, all_keys(), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def _describe(problem: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = [*all_keys(), *Config.model_fields]
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        return f"{key}: no such key" + (f" (did you mean {near[0]}?)" if near else "")
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{key}: {message}, found {problem['input']!r}" if key else message
