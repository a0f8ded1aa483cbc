"""Say which keys of a recipe are searched and over which ranges, and check that every range fits the recipe."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from sdcompress import methods, recipes
from sdcompress.data import DatasetCache
from sdcompress.errors import RecipeError, UnknownNameError, UsageError
from sdcompress.machine import default_threads
from sdcompress.schema.recipe import Recipe, Train
from sdcompress.schema.search import MEAN, SearchRange, Tune, Value

__all__ = ["check_networks", "default_search", "searched", "value_of", "with_values"]

LR = "train.optimizer.lr"
_SECTIONS = ("modality", "model", "exits", "method", "train")
# what these keys change is checked without a network
_NUMBERS = ("method.", "train.optimizer.", "train.schedule.")
# the budget is the same for all trials, and the others change nothing that is learnt
_SAME = {"train.epochs", *(f"train.{name}" for name in Train.not_identifying)}
# a range reaches from a tenth to ten times a weight or share; a temperature matters less far away
_WEIGHTS, _TEMPERATURES = 10.0, 4.0


def searched(recipe: Recipe) -> dict[str, SearchRange]:
    """Return the ranges of a recipe, or else ``default_search``, after a look at every corner of them.

    Raises:
        RecipeError: if the recipe does not have a key, a method or section refuses a value of its range, or the range
            does not hold the recipe's own value.
        UnknownNameError: if a network of the search lacks the exit of ``tune.exit``.
    """
    texts = recipe.tune.search or default_search(recipe)
    ranges = {key: SearchRange.parse(text) for key, text in texts.items()}
    for key, range_ in ranges.items():
        for value in range_.corners:
            _check(recipe, key, value)
        _check_first(recipe, key, range_)
    _check_exit(recipe, ranges)
    return ranges


def default_search(recipe: Recipe) -> dict[str, str]:
    """Return ranges for the learning rate and for the numbers of the recipe's method.

    The rate goes from a tenth of the recipe's to three times it. Weights and shares go from a tenth of theirs to ten
    times it, numbers that must be above 0, such as temperatures, from a quarter to four times it, all on a logarithmic
    scale and within their bounds. What is 0 is off and stays off; counts, decays and shares of the epochs stay.
    """
    rate = recipe.train.optimizer.lr
    found = {LR: f"log:{rate / 10:.3g}:{3 * rate:.3g}"}
    for key, value, bounds in _numbers(methods.build(recipe.method), "method"):
        factor = _TEMPERATURES if "gt" in bounds else _WEIGHTS
        high = min(value * factor, bounds.get("le", math.inf))
        found[key] = f"log:{value / factor:.3g}:{high:.3g}"
    return found


def _numbers(method: Any, prefix: str) -> Iterator[tuple[str, float, dict[str, float]]]:
    """Yield key, value and bounds of a method's real numbers that may be scaled."""
    for key, value, hint in _fields(method, prefix):
        bounds = _bounds(hint)
        scalable = {"ge", "gt"} & set(bounds) and "lt" not in bounds and bounds.get("ge", 0) == 0
        if scalable and isinstance(value, float) and value > 0:
            yield key, value, bounds


def _fields(method: Any, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield key, value and type of a method's parameters; of METHOD+LABELS those of both, as recipes name them."""
    from sdcompress.methods._base import Method  # imports torch

    hints = get_type_hints(type(method), include_extras=True)
    for field in fields(method):
        value = getattr(method, field.name)
        if isinstance(value, Method):
            yield from _fields(value, prefix if field.name == "method" else f"{prefix}.{field.name}")
        else:
            yield f"{prefix}.{field.name}", value, hints[field.name]


def _bounds(hint: Any) -> dict[str, float]:
    """Return ge, gt, le and lt of an ``Annotated[float, Field(...)]``."""
    given: dict[str, float] = {}
    for one in getattr(hint, "__metadata__", ()):
        for limit in getattr(one, "metadata", ()):
            given |= {name: getattr(limit, name) for name in ("ge", "gt", "le", "lt") if hasattr(limit, name)}
    return given


def _check_exit(recipe: Recipe, ranges: Mapping[str, SearchRange]) -> None:
    counts = ranges["exits.count"].corners if "exits.count" in ranges else (recipe.exits.count,)
    count = len(recipe.exits.modules) or min(int(one) for one in counts)
    known = [*(f"exit{k}" for k in range(1, count + 1)), "final", MEAN]
    if recipe.tune.exit not in known:
        raise UnknownNameError("exits that every trial has", recipe.tune.exit, known, next_step="--set tune.exit=final")


def _check(recipe: Recipe, key: str, value: Value) -> None:
    section = key.partition(".")[0]
    if key in _SAME or section in set(Recipe.model_fields).difference(_SECTIONS):
        raise RecipeError(
            f"tune.search names '{key}'; trials with other values of it cannot be compared.",
            allowed=f"keys of {', '.join(_SECTIONS)}, but for {', '.join(sorted(_SAME))}",
            next_step="remove it from the search",
        )
    try:
        methods.build(with_values(recipe, {key: value}).method)
    except RecipeError as error:
        raise _cannot_set(key, value, error) from error


def _cannot_set(key: str, value: Value, error: UsageError) -> RecipeError:
    return RecipeError(
        f"tune.search cannot set '{key}' to {value}: {error.problem}",
        allowed=error.allowed,
        next_step=f"correct the range: --search {key}=...",
    )


def check_networks(recipe: Recipe, ranges: Mapping[str, SearchRange], load: DatasetCache) -> None:
    """Build the network at every corner of the ranges that may change it, and run one batch through it.

    Otherwise a search fails after hours, when it comes to a choice that does not exist or to more exits than there are
    places.

    Args:
        recipe: the recipe.
        ranges: of the searched keys.
        load: loads the data.

    Raises:
        RecipeError: if a network cannot be built or trained.
    """
    from sdcompress.models.threads import torch_threads  # imports torch
    from sdcompress.training.check_recipe import check_recipe
    from sdcompress.training.preflight import check_with_data

    corners = [(key, value) for key, range_ in ranges.items() for value in range_.corners]
    with torch_threads(recipe.train.threads or default_threads().threads):
        for key, value in corners:
            if key.startswith(_NUMBERS):
                continue
            tried = with_values(recipe, {key: value})
            try:
                check_recipe(tried)
                dataset = load(tried.data, seed=tried.seed, task=tried.task, modality=tried.modality)
                check_with_data(tried, dataset)
            except UsageError as error:
                raise _cannot_set(key, value, error) from error


def _check_first(recipe: Recipe, key: str, range_: SearchRange) -> None:
    own = value_of(recipe, key)
    if own is None or not range_.holds(own):
        has = "no value" if own is None else f"{own}, which is not in {range_}"
        raise RecipeError(
            f"tune.search names '{key}', of which the recipe has {has}; the first trial has the recipe's values.",
            allowed="a range that holds the recipe's value",
            next_step=f"widen the range, or choose where the search begins: --set {key}={range_.corners[0]}",
        )


def with_values(recipe: Recipe, values: Mapping[str, Value], epochs: int | None = None) -> Recipe:
    """Return the recipe with values of some keys, and without the settings of its search.

    Args:
        recipe: the recipe.
        values: by key, such as train.optimizer.lr.
        epochs: of the training; None: those of the recipe.
    """
    plain = recipe.model_copy(update={"tune": Tune()})
    length = [] if epochs is None else [("train.epochs", epochs)]
    return recipes.read(plain, [*values.items(), *length])


def value_of(recipe: Recipe, key: str) -> Value | None:
    """Return what a recipe, or its method by default, has at a key; None where it has nothing."""
    if key.startswith("method."):
        return {name: value for name, value, _ in _fields(methods.build(recipe.method), "method")}.get(key)
    found: Any = recipe.model_dump(mode="json")
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found if isinstance(found, float | int | str | bool) else None
