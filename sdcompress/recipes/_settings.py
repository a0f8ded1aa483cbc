"""Apply settings to a recipe. Their order does not matter; one without effect is an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from sdcompress.errors import RecipeError, brief
from sdcompress.recipes._yaml import load_yaml
from sdcompress.schema.recipe import Recipe

__all__ = ["Setting", "Settings", "apply", "check_effect"]

Keys = tuple[str, ...]
Setting = str | tuple[str, Any]  # "train.epochs=10" or ("train.epochs", 10)
Settings = Iterable[Setting] | Mapping[str, Any]  # or {"train.epochs": 10}
_MAX_DEPTH = 20
_ENTRIES = {("method",), ("modality",), ("task",)}  # sections whose bare string is a name

# keys that only some recipes read: their condition, as a function and as text
_READ_BY: dict[str, tuple[Callable[[Recipe], bool], str]] = {
    "train.optimizer.momentum": (lambda recipe: recipe.train.optimizer.name == "sgd", "train.optimizer.name=sgd"),
    "train.optimizer.nesterov": (lambda recipe: recipe.train.optimizer.name == "sgd", "train.optimizer.name=sgd"),
    "train.optimizer.betas": (lambda recipe: recipe.train.optimizer.name == "adamw", "train.optimizer.name=adamw"),
    "train.feature_cache_gb": (lambda recipe: recipe.train.backbone == "frozen", "train.backbone=frozen"),
    "train.optimizer.layer_decay": (lambda recipe: recipe.train.backbone == "tuned", "train.backbone=tuned"),
    "train.schedule.milestones": (
        lambda recipe: recipe.train.schedule.name == "multistep",
        "train.schedule.name=multistep",
    ),
    "train.schedule.gamma": (lambda recipe: recipe.train.schedule.name == "multistep", "train.schedule.name=multistep"),
    "train.schedule.final_lr_ratio": (
        lambda recipe: recipe.train.schedule.name == "cosine",
        "train.schedule.name=cosine",
    ),
    "exits.count": (lambda recipe: not recipe.exits.modules, "exits.modules=[]"),
    "export.truncate_at": (lambda recipe: "single" in recipe.export.layouts, "'single' in export.layouts"),
    "bench.batch_sizes": (lambda recipe: "offline" in recipe.bench.scenarios, "'offline' in bench.scenarios"),
}


def apply(tree: dict[str, Any], settings: Settings) -> set[Keys]:
    """Apply ``section.key=value`` settings to the tree of a recipe, sections before their keys.

    Args:
        tree: of the recipe; modified in place.
        settings: with values in YAML, pairs of key and value, or a mapping.

    Returns:
        The keys that were set, including keys inside sections.

    Raises:
        RecipeError: if a setting is malformed, or two set one key to different values.
    """
    assigned: dict[Keys, tuple[Any, str]] = {}
    settings = [settings] if isinstance(settings, str) else settings
    parsed = map(_parse, settings.items() if isinstance(settings, Mapping) else settings)
    for keys, value, text in sorted(parsed, key=lambda setting: len(setting[0])):
        for inner, part in _parts(keys, value):
            if inner in assigned and assigned[inner][0] != part:
                raise RecipeError(
                    f"'{brief('.'.join(inner))}' is set to two different values: {brief(assigned[inner][1])} and "
                    f"{brief(text)}.",
                    allowed="one value for each key, by its flag or by --set",
                    next_step="remove one of them",
                )
            assigned[inner] = part, text
        _put(tree, keys, value)
    return set(assigned)


def check_effect(recipe: Recipe, keys_set: Iterable[Keys]) -> None:
    """Refuse a setting that the recipe does not read.

    Args:
        recipe: with its settings applied.
        keys_set: the keys that were set.

    Raises:
        RecipeError: if a setting has no effect.
    """
    for key in sorted(".".join(parts) for parts in keys_set):
        is_read, condition = _READ_BY.get(key, (None, ""))
        if is_read is not None and not is_read(recipe):
            raise RecipeError(
                f"'{key}' is set, but this recipe does not use it.",
                allowed=f"it has an effect with {condition}",
                next_step=f"remove '{key}', or change the recipe to {condition}",
            )


def _parse(setting: Setting) -> tuple[Keys, Any, str]:
    if isinstance(setting, tuple):
        key, value = setting
        return _named(tuple(key.split(".")), value, f"{key}={value}")
    key, equals, text = setting.partition("=")
    keys = tuple(key.split("."))
    if not equals or not all(keys) or len(keys) > _MAX_DEPTH:
        raise RecipeError(
            f"'{brief(setting)}' is not a setting.",
            allowed="section.key=value, e.g. train.epochs=10 or method=eed",
            next_step="write the key, an equals sign and the value, without spaces",
        )
    return _named(keys, load_yaml(text, f"the value of '{brief(key)}'"), setting)


def _named(keys: Keys, value: Any, text: str) -> tuple[Keys, Any, str]:
    # 'method=byot' is short for 'method={name: byot}'
    return keys, {"name": value} if keys in _ENTRIES and isinstance(value, str) else value, text


def _parts(keys: Keys, value: Any) -> Iterator[tuple[Keys, Any]]:
    yield keys, value
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _parts((*keys, str(key)), inner)


def _put(tree: dict[str, Any], keys: Keys, value: Any) -> None:
    *sections, last = keys
    for depth, section in enumerate(sections, start=1):
        inner = tree.get(section)
        if isinstance(inner, str) and keys[:depth] in _ENTRIES:
            inner = {"name": inner}
        if not isinstance(inner, Mapping | None):
            raise RecipeError(
                f"'{brief('.'.join(keys[:depth]))}' is {brief(inner)}, so '{brief('.'.join(keys))}' cannot be set.",
                allowed="keys of a section",
                next_step=f"set '{brief('.'.join(keys[:depth]))}' as a whole",
            )
        tree[section] = dict(inner or {})
        tree = tree[section]
    tree[last] = value
