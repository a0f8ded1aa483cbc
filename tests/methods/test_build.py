"""From a recipe's numbers to a method, or to a message."""

from __future__ import annotations

from typing import Any

import pytest

from sdcompress import methods
from sdcompress.errors import RecipeError, UnknownNameError
from sdcompress.methods.byot import Byot
from sdcompress.schema import recipe


def test_a_recipe_sets_the_fields_and_leaves_the_others() -> None:
    method = methods.build(recipe.MethodSection(name="byot", kd_weight="1e-1", temperature=4))
    assert method == Byot(kd_weight=0.1, temperature=4.0)


def test_a_misspelt_parameter_gets_the_nearest_one() -> None:
    with pytest.raises(RecipeError) as caught:
        methods.build(recipe.MethodSection(name="byot", kd_wieght=0.1))
    assert "Did you mean 'kd_weight'?" in str(caught.value)
    assert caught.value.allowed == "feature_weight, kd_weight, temperature"


def test_what_a_method_is_cannot_be_set() -> None:
    with pytest.raises(RecipeError, match="no parameter 'needs'"):
        methods.build(recipe.MethodSection(name="ps_kd", needs={}))


def test_a_misspelt_method_gets_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'byot'"):
        methods.build(recipe.MethodSection(name="byott"))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("byot", {"temperature": 0}),
        ("byot", {"kd_weight": 1.5}),
        ("byot", {"feature_weight": float("nan")}),
        ("self_distillation", {"feature_weight": -1}),
        ("eed", {"logit_weight": float("inf")}),
        ("label_smooth", {"epsilon": "much"}),
        ("ps_kd", {"alpha": -0.1}),
        ("sfr", {"iterations": 0}),
        ("sfr", {"epsilon": 0}),
    ],
)
def test_a_number_out_of_range_is_named(name: str, parameters: dict[str, Any]) -> None:
    (key,) = parameters
    with pytest.raises(RecipeError, match=f"method.{key} is"):
        methods.build(recipe.MethodSection(name=name, **parameters))
