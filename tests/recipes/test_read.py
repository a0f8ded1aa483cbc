"""From YAML and settings to a checked recipe."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml

from sdcompress import recipes
from sdcompress.cli.options import as_settings
from sdcompress.errors import RecipeError, UnknownNameError
from sdcompress.schema.recipe import Recipe


def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: 1\ntrain:\n  epochs: 3\n  epochs: 4\n")
    with pytest.raises(RecipeError, match="'epochs' is repeated in line 4"):
        recipes.read(tmp_path / "a.yaml")


def test_settings_win_in_order_and_keep_what_stands_beside_them() -> None:
    read = recipes.read(
        {"method": {"name": "byot", "temperature": 2.0}}, ["method.temperature=4", "method.kd_weight=0.2"]
    )
    assert read.method.parameters == {"temperature": 4, "kd_weight": 0.2}
    assert recipes.read({}, ["task=multilabel", "task.threshold=0.4"]).task.parameters == {"threshold": 0.4}
    assert recipes.read({"method": "byot"}, ["method.temperature=4"]).method.name == "byot"
    assert recipes.read({"method": {"name": "byot", "temperature": 2.0}}, ["method=eed"]).method.parameters == {}


@pytest.mark.parametrize("folder", ["2024", "a #b", "C: x", "null", "ü"])
def test_a_flag_is_taken_as_it_was_typed(folder: str) -> None:
    assert recipes.read(None, as_settings(None, data__dir=Path(folder))).data.dir == folder


def test_what_is_dumped_is_read_back() -> None:
    for name in recipes.names():
        read = recipes.read(name)
        assert recipes.read(read, []) == read
        assert recipes.describe(name).endswith(".")


def test_numbers_that_json_does_not_have_survive_every_way_of_writing_a_recipe() -> None:
    settings = ["model.options={fill: -.inf, more: [.nan, {top: .inf}]}", "method.bound=.inf", "method.name=own"]
    recipe = recipes.read(None, settings)
    assert json.loads(recipe.model_dump_json())["model"]["options"]["fill"] == "-.inf"
    for again in (
        Recipe.model_validate_json(recipe.model_dump_json()),
        Recipe.model_validate(recipe.model_dump(mode="json")),
        recipes.read(yaml.safe_load(recipes.dump(recipe))),
    ):
        assert again.model.options["fill"] == -math.inf
        assert math.isnan(again.model.options["more"][0])
        assert again.model.options["more"][1] == {"top": math.inf}
        assert again.method.parameters == {"bound": math.inf}


def test_a_file_that_is_not_there_is_answered_with_one_that_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "garments.yaml").write_text("name: x")
    with pytest.raises(UnknownNameError, match=r"Did you mean 'garments\.yaml'"):
        recipes.read("garment.yaml")
