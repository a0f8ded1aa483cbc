"""Shipped recipes, and how a recipe is read: file or shipped name, then 'section.key=value' settings on top."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sdcompress.errors import RecipeError, UnknownNameError
from sdcompress.schema.base import explain
from sdcompress.schema.recipe import Recipe

__all__ = ["describe", "dump", "names", "read"]


def names() -> list[str]:
    """The shipped recipes, sorted."""
    return sorted(path.name.removesuffix(".yaml") for path in files(__name__).iterdir() if path.name.endswith(".yaml"))


def describe(name: str) -> str:
    """The first comment of a shipped recipe."""
    return _shipped(name).partition("\n")[0].lstrip("# ")


def read(source: str | Path | Mapping[str, Any] | Recipe | None, settings: Iterable[str] = ()) -> Recipe:
    """A checked recipe.

    Args:
        source: a YAML file, the name of a shipped recipe, a mapping, a recipe, or None for the defaults.
        settings: ``section.key=value`` with the value in YAML, applied in order; later ones win.

    Raises:
        RecipeError: if the file is not YAML, a key is unknown or a value is out of range.
        UnknownNameError: if there is neither such a file nor such a recipe.
    """
    what, tree = _tree(source)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise RecipeError(
                f"'{setting}' is not a setting.",
                allowed="section.key=value, e.g. train.epochs=10 or method=eed",
                next_step="write the key, an equals sign and the value, without spaces",
            )
        _put(tree, key, _yaml(text, f"the value of '{key}'"))
        what = "the settings" if source is None else f"{what} with its settings"
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise explain(error, Recipe, what, RecipeError) from error


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, every key written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _tree(source: str | Path | Mapping[str, Any] | Recipe | None) -> tuple[str, dict[str, Any]]:
    if source is None:
        return "the recipe", {}
    if isinstance(source, Recipe):
        return f"the recipe '{source.name}'", source.model_dump(mode="json")
    if isinstance(source, Mapping):
        return "the recipe", dict(source)
    path = Path(source)
    text = _text(path) if path.is_file() else _shipped(str(source))
    tree = _yaml(text, f"the recipe {source}")
    if not isinstance(tree, dict):
        raise RecipeError(
            f"The recipe {source} holds {type(tree).__name__}, not keys and values.",
            next_step="see 'sdcompress train --print-config' for what a recipe looks like",
        )
    return f"the recipe {source}", tree


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"The recipe {path} cannot be read: {error}", allowed="a text file in UTF-8", next_step="save it as one"
        ) from error


def _shipped(name: str) -> str:
    if name not in names():
        raise UnknownNameError(
            "recipe files and shipped recipes",
            name,
            names(),
            next_step="give a YAML file that exists or a shipped name",
        )
    return (files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")


class _Loader(yaml.SafeLoader):
    """YAML in which no key may stand twice: the first would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for position, (key, _) in enumerate(node.value):
            if key.value in keys[:position]:
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' stands twice", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


def _yaml(text: str, what: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise RecipeError(
            f"There is no valid YAML in {what}: {problem}{where}.", next_step="correct the text"
        ) from error


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        inner = tree.get(section)
        if isinstance(inner, str) and section == "method":
            inner = {"name": inner}  # 'method: byot' is short for 'method: {name: byot}'
        tree[section] = dict(inner) if isinstance(inner, Mapping) else {}
        tree = tree[section]
    tree[last] = value
