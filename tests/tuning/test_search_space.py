from __future__ import annotations

import pytest

from sdcompress import recipes
from sdcompress.errors import RecipeError
from sdcompress.schema.search import SearchRange
from sdcompress.tuning.search_space import default_search, searched, value_of, with_values


@pytest.mark.parametrize(
    ("text", "corners"),
    [
        ("log:1e-4:0.1", (1e-4, 0.1)),
        ("uniform:-1:1", (-1.0, 1.0)),
        ("int:1:8", (1, 8)),
        ("int:1:2000001", (1, 2000001)),
        ("log:0.12345678:1", (0.1235, 1.0)),
        ("choice:linear,sepconv", ("linear", "sepconv")),
        ("choice:2,2.5,true,false,x:y", (2, 2.5, True, False, "x:y")),
    ],
)
def test_a_range_reads_as_it_is_written(text: str, corners: tuple) -> None:
    range_ = SearchRange.parse(text)
    assert range_.corners == corners
    assert [type(value) for value in range_.corners] == [type(value) for value in corners]
    assert SearchRange.parse(str(range_)) == range_


@pytest.mark.parametrize(
    "text",
    ["", "log", "log:1", "log:0:1", "log:2:1", "uniform:a:b", "int:1.5:2", "log:1:inf", "choice:a", "choice:a,a"],
)
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="'"):
        SearchRange.parse(text)
    with pytest.raises(RecipeError, match=r"tune\.search"):
        recipes.read({"tune": {"search": {"train.optimizer.lr": text}}})


def test_numbers_have_four_digits_and_stay_in_the_range() -> None:
    assert SearchRange.parse("uniform:0:1").cast(0.123456) == 0.1235
    assert SearchRange.parse("uniform:0:0.12344").cast(0.12344) == 0.1234
    assert SearchRange.parse("uniform:0.12344:1").cast(0.12344) == 0.12344
    assert SearchRange.parse("int:1:4").cast(3.0) == 3


@pytest.mark.parametrize(
    ("method", "found"),
    [
        ("baseline", {}),
        ("byot", {"kd_weight": "log:0.01:1", "temperature": "log:0.75:12", "feature_weight": "log:0.0066:0.66"}),
        # a feature weight of 0 is off
        ("self_distillation", {"kd_weight": "log:0.03:1", "temperature": "log:0.75:12"}),
        # a factor of at least 1 stays
        ("med", {"kd_weight": "log:0.05:1", "confidence": "log:0.05:1"}),
        # a count and a share below 1 stay
        ("fastbert", {"temperature": "log:0.25:4"}),
        ("eed+ps_kd", {"logit_weight": "log:0.1:10", "feature_weight": "log:0.1:10", "labels.alpha": "log:0.08:1"}),
    ],
)
def test_by_default_the_rate_and_the_numbers_of_the_method(method: str, found: dict[str, str]) -> None:
    recipe = recipes.read({"method": method, "train": {"optimizer": {"lr": 0.1}}})
    expected = {"train.optimizer.lr": "log:0.01:0.3", **{f"method.{key}": range_ for key, range_ in found.items()}}
    assert default_search(recipe) == expected
    assert {key: str(range_) for key, range_ in searched(recipe).items()} == expected


def test_values_reach_the_recipe_and_the_search_leaves_it() -> None:
    recipe = recipes.read({"method": "eed+ps_kd", "tune": {"trials": 3}})
    assert value_of(recipe, "method.labels.alpha") == 0.8
    assert value_of(recipe, "method.logit_weight") == 1.0
    assert value_of(recipe, "train.optimizer.lr") == 0.1
    assert value_of(recipe, "model.options.width") is None
    other = with_values(recipe, {"method.labels.alpha": 0.5, "model.options.width": 0.5, "exits.count": 2}, epochs=7)
    assert value_of(other, "method.labels.alpha") == 0.5
    assert (other.model.options, other.exits.count, other.train.epochs) == ({"width": 0.5}, 2, 7)
    assert other.tune.trials == 20


@pytest.mark.parametrize(
    ("key", "range_", "said"),
    [
        ("method.kd_wait", "log:0.1:1", "Did you mean 'kd_weight'"),
        ("method.kd_weight", "uniform:0:2", "kd_weight"),
        ("train.optimizer.rate", "log:0.1:1", "unknown key"),
        ("exits.count", "int:0:2", "exits.count"),
        ("seed", "int:0:9", "cannot be compared"),
        ("data.train_limit", "int:10:20", "cannot be compared"),
        ("tune.trials", "int:1:2", "cannot be compared"),
        ("train.epochs", "int:1:60", "cannot be compared"),
        ("train.threads", "int:1:2", "cannot be compared"),
        ("calibrate.max_drop", "uniform:0:0.1", "cannot be compared"),
        ("train.optimizer.lr", "log:0.2:1", "the recipe has 0.1, which is not in log:0.2:1"),
        ("model.options.width", "uniform:0.25:1", "the recipe has no value"),
    ],
)
def test_a_range_that_does_not_fit_the_recipe_is_refused_before_anything_is_trained(key, range_, said) -> None:
    recipe = recipes.read({"method": "byot", "tune": {"search": {key: range_}}})
    with pytest.raises(RecipeError, match=r"tune\.search") as refused:
        searched(recipe)
    assert said in str(refused.value)
