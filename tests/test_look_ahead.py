"""What a run refuses before it trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdcompress import pipeline, recipes
from sdcompress.errors import RecipeError, SdcompressError, UnknownNameError
from sdcompress.look_ahead import check_data, check_recipe

TOO_FEW = {
    "no validation for the thresholds": ["data.validation=0"],
    "too few to choose thresholds": ["data.validation=0.03"],
    "too few to certify": ["calibrate.confidence=0.95", "calibrate.max_drop=0.01"],
    "too few to prove an export": ["data.validation=0.05", "data.test_limit=100"],
}


@pytest.mark.parametrize("settings", TOO_FEW.values(), ids=TOO_FEW.keys())
def test_too_few_held_out_images_are_refused(settings: list[str]) -> None:
    with pytest.raises(RecipeError, match="holds out") as caught:
        check_data(recipes.read("digits", settings))
    assert "data.validation" in caught.value.next_step


def test_no_validation_is_right_where_nothing_is_calibrated() -> None:
    check_data(recipes.read("digits", ["data.validation=0", "export.layouts=[single]"]))
    check_data(recipes.read("digits", ["data.validation=0", "method=baseline", "controls=[]"]))


def test_an_exit_that_will_not_be_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'exit2'") as caught:
        check_recipe(recipes.read("digits", ["exits.auto=2", "export.exits=[exit22]"]))
    assert caught.value.allowed == "exit1, exit2, final"


def test_nothing_is_trained_or_written_when_the_end_is_known(tmp_path: Path) -> None:
    with pytest.raises(SdcompressError):
        pipeline.run(recipes.read("digits", ["data.validation=0"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
