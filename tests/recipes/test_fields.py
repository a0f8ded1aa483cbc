"""Every field of a recipe, whatever it is called: numbers are finite and bounded, names have an end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from sdcompress import methods, recipes, registry
from sdcompress.errors import RecipeError
from sdcompress.schema import recipe
from sdcompress.schema.base import Frozen


def kinds(annotation: Any) -> set[Any]:
    """The types that an annotation is made of."""
    inner = get_args(annotation)
    return {annotation}.union(*map(kinds, inner)) if inner else {annotation}


def leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, set[Any], Any]]:
    """Every key of a recipe with its types and its default."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from leaves(inner, (*path, name))
        else:
            yield ".".join((*path, name)), kinds(inner), field.default


def keys(kind: type) -> list[tuple[str, bool, int]]:
    """Keys of that type: their name, whether they are a list, and how many the default list has."""
    return [
        (key, isinstance(default, tuple), max(1, len(default)) if isinstance(default, tuple) else 1)
        for key, types, default in leaves(recipe.Recipe)
        if kind in types
    ]


def tree(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def refused(key: str, value: Any) -> None:
    with pytest.raises(RecipeError, match=key.replace(".", r"\.")) as caught:
        recipes.read(tree(key, value))
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 10**400])
def test_no_number_of_a_recipe_may_be_infinite_or_none(value: float) -> None:
    float_keys = keys(float)
    assert {"export.atol", "train.schedule.warmup_epochs", "train.schedule.milestones", "bench.percentiles"} <= {
        key for key, *_ in float_keys
    }
    for key, is_list, length in float_keys:
        refused(key, [value] * length if is_list else value)


@pytest.mark.parametrize("value", [2**64, -(2**64), 10**400, math.inf, math.nan])
def test_no_integer_of_a_recipe_may_be_beyond_what_machines_count(value: float) -> None:
    for key, is_list, length in keys(int):
        refused(key, [value] * length if is_list else value)


def test_no_name_of_a_recipe_may_be_without_end_where_it_becomes_a_file() -> None:
    for key in ("name", "data.dir", "model.weights", "method.name", "method.file"):
        refused(key, "a" * 5000)


@pytest.mark.parametrize(
    "key", ["export.layouts", "export.truncate_at", "bench.scenarios", "bench.batch_sizes", "bench.percentiles"]
)
def test_a_list_that_says_what_to_do_says_something_and_each_once(key: str) -> None:
    refused(key, [])
    (default,) = [default for name, _, default in leaves(recipe.Recipe) if name == key]
    refused(key, [default[0], default[0]])


def test_steps_of_the_rate_are_named_and_lie_in_the_training() -> None:
    with pytest.raises(RecipeError, match="multistep needs milestones"):
        recipes.read(None, ["train.schedule.name=multistep"])
    refused("train.schedule.milestones", [-1])


@pytest.mark.parametrize("key", ["train.ema_decay", "train.optimizer.betas", "data.validation"])
def test_a_share_that_leaves_nothing_is_refused(key: str) -> None:
    """An average that never moves, a moment that never moves, no image to train on."""
    refused(key, [0.9, 1.0] if key.endswith("betas") else 1.0)


@pytest.mark.parametrize("name", registry.names(methods.ROOM))
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_no_number_of_a_method_may_be_infinite_or_none(name: str, value: float) -> None:
    kind = registry.load(methods.ROOM, name, extra="train")
    for field in fields(kind):
        with pytest.raises(RecipeError, match=field.name):
            methods.build(recipe.MethodSection.model_validate({"name": name, field.name: value}))


def stored(kind: type[BaseModel]) -> set[type[BaseModel]]:
    return {kind}.union(*(stored(inner) for inner in kind.__subclasses__()))


def test_every_stored_type_holds_finite_numbers_alone() -> None:
    assert len(stored(Frozen)) > 40
    assert not [kind.__name__ for kind in stored(Frozen) if kind.model_config.get("allow_inf_nan") is not False]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from([key for key, *_ in leaves(recipe.Recipe)]),
        st.one_of(
            st.floats(), st.integers(), st.text("a1-.e", max_size=20), st.lists(st.floats(), max_size=3), st.none()
        ),
        max_size=3,
    )
)
def test_any_values_give_a_recipe_that_is_read_back_or_an_error_of_ours(values: dict[str, Any]) -> None:
    recipe_tree: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        inner = recipe_tree
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    try:
        read = recipes.read(recipe_tree)
    except RecipeError:
        return
    assert recipes.read(read) == read
    assert recipes.Recipe.model_validate_json(read.model_dump_json()) == read
