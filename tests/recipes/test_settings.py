"""Settings on top of a recipe: every one of them holds, or is refused."""

from __future__ import annotations

import itertools

import pytest

from sdcompress import recipes
from sdcompress.errors import RecipeError


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_section_and_its_keys_hold_together_in_any_order(order: tuple[int, ...]) -> None:
    settings = ["method=fastbert", "method.backbone_share=0.25", "method.temperature=2"]
    read = recipes.read({"method": {"name": "byot", "kd_weight": 0.1}}, [settings[k] for k in order])
    assert read.method.name == "fastbert"
    assert read.method.parameters == {"backbone_share": 0.25, "temperature": 2}


@pytest.mark.parametrize(
    "settings",
    [
        ["train.epochs=7", "train.epochs=8"],
        ["method=eed", "method=byot"],
        ["method=eed", "method.name=byot"],
        ["method={name: eed}", "method=byot"],
        ["train={epochs: 3}", "train.epochs=4"],
        ["train={epochs: 3}", "train={batch_size: 4}"],
        ["controls=[baseline]", "controls=[]"],
    ],
)
def test_a_key_is_set_once(settings: list[str]) -> None:
    for ordered in (settings, settings[::-1]):
        with pytest.raises(RecipeError, match="is set to two different values") as caught:
            recipes.read("digits", ordered)
        assert all(setting in str(caught.value) for setting in settings)


def test_the_same_setting_twice_is_no_contradiction() -> None:
    ordered = ["train.epochs=7", "train={epochs: 7}", "train.epochs=7", "method=eed", "method.name=eed"]
    read = recipes.read("digits", ordered)
    assert (read.train.epochs, read.method.name) == (7, "eed")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (["train.optimizer.name=adamw", "train.optimizer.momentum=0.5"], "train.optimizer.momentum"),
        (["train.optimizer.betas=[0.5, 0.9]"], "train.optimizer.betas"),
        (["train.schedule={milestones: [3]}"], "train.schedule.milestones"),
        (["train.schedule={name: multistep, milestones: [3], final_lr_ratio: 0.1}"], "train.schedule.final_lr_ratio"),
        (["exits.modules=[layers.1]", "exits.count=2"], "exits.count"),
        (["export.layouts=[cascade]", "export.truncate_at=[exit1]"], "export.truncate_at"),
        (["bench.scenarios=[single-stream]", "bench.batch_sizes=[4]"], "bench.batch_sizes"),
    ],
)
def test_a_setting_that_the_recipe_does_not_read_is_refused(settings: list[str], key: str) -> None:
    with pytest.raises(RecipeError, match=f"'{key}' is set, but this recipe does not use it"):
        recipes.read(None, settings)
    # a recipe that holds all keys, as --print-config writes it, may hold those that it does not read
    assert recipes.read(recipes.read("digits").model_dump(mode="json")) == recipes.read("digits")


def test_a_setting_below_a_value_names_what_stands_in_its_way() -> None:
    with pytest.raises(RecipeError, match=r"'data' is cifar10, so 'data\.dir' cannot be set"):
        recipes.read({"data": "cifar10"}, ["data.dir=there"])


def test_the_settings_are_named_once_however_many_there_are() -> None:
    with pytest.raises(RecipeError) as caught:
        recipes.read("digits", ["train.epochs=-1", "seed=3", "name=x"])
    assert caught.value.problem.startswith("There is a problem in the recipe digits with its settings: ")
    assert str(caught.value).count("with its settings") == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"train.epochs": 7, "method": "eed"},
        {"train.epochs": "7", "method": {"name": "eed"}},
        [("train.epochs", 7), "method=eed"],
    ],
)
def test_settings_may_be_a_mapping(settings: recipes.Settings) -> None:
    read = recipes.read("digits", settings)
    assert (read.train.epochs, read.method.name) == (7, "eed")


def test_a_single_setting_needs_no_list() -> None:
    assert recipes.read("digits", "train.epochs=7").train.epochs == 7
