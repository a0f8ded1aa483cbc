"""Read recipes: from a file or by shipped name, with 'section.key=value' settings on top."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from sdcompress.errors import RecipeError, UnknownNameError
from sdcompress.recipes._keys import Key, all_keys
from sdcompress.recipes._settings import Setting, Settings, apply, check_effect
from sdcompress.recipes._yaml import MAX_BYTES, dump_yaml, load_yaml
from sdcompress.schema.base import Frozen, explain
from sdcompress.schema.recipe import Recipe

__all__ = [
    "Key",
    "Section",
    "Setting",
    "Settings",
    "all_keys",
    "describe",
    "dump",
    "names",
    "override",
    "parse",
    "read",
]

Section = TypeVar("Section", bound=Frozen)


def names() -> list[str]:
    """Return the names of the shipped recipes, sorted."""
    return sorted(path.name.removesuffix(".yaml") for path in files(__name__).iterdir() if path.name.endswith(".yaml"))


def describe(name: str) -> str:
    """Return the first comment line of a shipped recipe."""
    return _shipped(name).partition("\n")[0].lstrip("# ")


def read(source: str | Path | Mapping[str, Any] | Recipe | None, settings: Settings = ()) -> Recipe:
    """Read and validate a recipe.

    Args:
        source: a YAML file, the name of a shipped recipe, a mapping, a recipe, or None for the defaults.
        settings: ``section.key=value`` with the value in YAML, pairs of key and value, or a mapping, in any order; they
            override the source.

    Raises:
        RecipeError: if the file is not YAML, a key is unknown, a value is out of range, or a setting has no effect.
        UnknownNameError: if there is no such file and no such shipped recipe.
    """
    description, tree = _tree(source)
    keys = apply(tree, settings)
    if keys:
        description = "the settings" if source is None else f"{description} with its settings"
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        raise explain(error, Recipe, description, RecipeError) from error
    check_effect(recipe, keys)
    return recipe


def override(section: Section, given: Section | Mapping[str, Any] | None) -> Section:
    """Return a section of a recipe with what was given for it.

    Args:
        section: such as ``recipe.calibrate``.
        given: a whole section, which is taken as it is; or some of its keys, which win; None: nothing.

    Raises:
        RecipeError: if a key is unknown, a value is out of range, or two exclude each other.
    """
    if given is None or not isinstance(given, Mapping):
        return section if given is None else given
    name = next(name for name, field in Recipe.model_fields.items() if field.annotation is type(section))
    try:
        whole = Recipe.model_validate({name: {**section.model_dump(), **given}})
    except ValidationError as error:
        raise explain(error, Recipe, f"the settings of '{name}'", RecipeError) from error
    checked: Section = getattr(whole, name)
    return checked


def parse(settings: Iterable[Setting]) -> dict[str, Any]:
    """Return the tree that ``key=value`` settings make, for verbs whose settings are no section of a recipe.

    Args:
        settings: with values in YAML.

    Raises:
        RecipeError: if a setting is malformed, or two set one key to different values.
    """
    tree: dict[str, Any] = {}
    apply(tree, settings)
    return tree


def dump(recipe: Recipe) -> str:
    """Return the recipe as YAML with all keys."""
    return dump_yaml(recipe.model_dump(mode="json"))


def _tree(source: str | Path | Mapping[str, Any] | Recipe | None) -> tuple[str, dict[str, Any]]:
    if source is None:
        return "the recipe", {}
    if isinstance(source, Recipe):
        return f"the recipe '{source.name}'", source.model_dump(mode="json")
    if isinstance(source, Mapping):
        return "the recipe", dict(source)
    path = Path(source)
    text = _text(path) if os.path.isfile(path) else _shipped(str(source))  # noqa: PTH113 - unlike is_file it never raises
    tree = load_yaml(text, f"the recipe {source}")
    if not isinstance(tree, dict):
        content = "nothing" if tree is None else f"{type(tree).__name__}, not keys and values"
        raise RecipeError(
            f"The recipe {source} holds {content}.",
            next_step="see 'sdcompress train --print-config' for an example",
        )
    return f"the recipe {source}", tree


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"The recipe {path} cannot be read: {error}", allowed="a text file in UTF-8", next_step="save it as one"
        ) from error


def _shipped(name: str) -> str:
    if name not in names():
        files_here = (path.name for path in Path.cwd().glob("*.y*ml")) if Path(name).suffix else ()
        raise UnknownNameError(
            "recipe files and shipped recipes",
            name,
            [*names(), *files_here],
            next_step="give a YAML file that exists or a shipped name",
        )
    return (files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")
