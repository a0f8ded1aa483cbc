"""From a recipe's numbers to a method, or to a message."""

from __future__ import annotations

from typing import Any

import pytest

from sdcompress import list_entries, methods, registry
from sdcompress.errors import RecipeError, UnknownNameError
from sdcompress.methods._labelled import Labelled
from sdcompress.methods.byot import Byot
from sdcompress.methods.eed import Eed
from sdcompress.methods.ps_kd import PsKd
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


def test_a_preset_sets_parameters_and_those_beside_it_win() -> None:
    method = methods.build(recipe.MethodSection(name="eed", preset="paper", feature_weight=0.5))
    assert method == Eed(logit_weight=1.0, feature_weight=0.5)
    labelled = methods.build(recipe.MethodSection(name="eed+ps_kd", preset="paper", labels={"preset": "paper"}))
    assert labelled == Labelled(method=Eed(logit_weight=1.0, feature_weight=1.0), labels=PsKd(alpha=0.8))


def test_a_preset_that_a_method_does_not_have_is_named() -> None:
    with pytest.raises(RecipeError, match="'eed' has no preset 'papers'") as caught:
        methods.build(recipe.MethodSection(name="eed", preset="papers"))
    assert caught.value.allowed == "paper"
    with pytest.raises(RecipeError, match="'sfr' has no preset 'paper'"):
        methods.build(recipe.MethodSection(name="sfr", preset="paper"))
    with pytest.raises(RecipeError, match=r"'ps_kd' has no preset \['paper'\]"):
        methods.build(recipe.MethodSection(name="eed+ps_kd", labels={"preset": ["paper"]}))


@pytest.mark.parametrize("name", registry.names(methods.ROOM))
def test_every_preset_is_read_from_the_file_and_can_be_built(name: str) -> None:
    kind = registry.load(methods.ROOM, name, extra="train")
    found = registry.presets(methods.ROOM, name)
    assert found == dict(kind.presets)
    for preset, numbers in found.items():
        assert methods.build(recipe.MethodSection(name=name, preset=preset)) == kind(**numbers)


def test_presets_are_listed() -> None:
    assert list_entries("methods")["methods"]["eed"].endswith("[preset paper: logit_weight=1, feature_weight=1]")
