"""What a run refuses before it trains."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

import sdcompress
from sdcompress import data, recipes
from sdcompress.errors import DataError, RecipeError, SdcompressError, UnknownNameError, UsageError
from sdcompress.exporting.preflight import warn_of_export
from sdcompress.pipeline.preflight import check_data, check_recipe
from sdcompress.pipeline.run import run as run_pipeline

TOO_FEW = {
    "no validation to judge a precision by": [
        "data.validation=0",
        "method=baseline",
        "controls=[]",
        "quantize.precisions=[int8]",
    ],
    "no validation for the thresholds": ["data.validation=0"],
    "too few to choose thresholds": ["data.validation=0.03"],
    "too few to certify": ["calibrate.confidence=0.95", "calibrate.max_drop=0.01"],
}


@pytest.mark.parametrize("settings", TOO_FEW.values(), ids=TOO_FEW.keys())
def test_too_few_held_out_images_are_refused(settings: list[str]) -> None:
    with pytest.raises(RecipeError, match="holds out") as caught:
        check_data(recipes.read("digits", settings), data.DatasetCache())
    assert "data.validation" in caught.value.next_step


def test_no_validation_is_right_where_nothing_is_calibrated() -> None:
    check_data(recipes.read("digits", ["data.validation=0", "export.layouts=[single]"]), data.DatasetCache())
    check_data(recipes.read("digits", ["data.validation=0", "method=baseline", "controls=[]"]), data.DatasetCache())


def test_few_held_out_images_prove_less_and_that_is_said_before_the_training() -> None:
    recipe = recipes.read("digits", ["data.validation=0.05", "data.test_limit=100"])  # 72 and 100 images
    with pytest.warns(UserWarning, match="172 held-out examples prove the export, not 256"):
        warn_of_export(recipe, data.load(recipe.data, seed=recipe.seed, modality=recipe.modality))


MIXING = """
from torch import nn

def mixing(outputs, inputs):
    # without running statistics every image is normalised by the batch that it comes in
    norm = nn.BatchNorm2d(8, track_running_stats=False)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(inputs[0].shape[1], 8, 3, 2, 1), norm, nn.ReLU()),
        nn.Conv2d(8, 8, 3, 2, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, outputs[0]),
    )
"""


def test_what_the_export_will_refuse_is_found_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mixing_nets.py").write_text(MIXING)
    monkeypatch.syspath_prepend(tmp_path)
    settings = ["model.name=mixing_nets:mixing", "controls=[]", "exits.count=1", "export.truncate_at=[final]"]
    recipe = recipes.read("digits", [*settings, "train.epochs=1", "data.train_limit=64"])
    with pytest.raises(UsageError, match="depend on the other samples of the batch"):
        run_pipeline(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # a training alone may be wanted without an export
    with pytest.warns(UserWarning, match=r"cannot be exported.*other samples of the batch"):
        assert sdcompress.train(recipe, tmp_path / "train").state.finished


def test_a_training_alone_needs_nothing_of_an_export(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("sdcompress.exporting")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)  # not installed
    recipe = recipes.read("digits", ["data.test_limit=20", "data.validation=0"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_export(recipe, data.load(recipe.data, seed=recipe.seed, modality=recipe.modality))


def test_an_exit_that_will_not_be_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'exit2'") as caught:
        check_recipe(recipes.read("digits", ["exits.count=2", "export.truncate_at=[exit22]"]))
    assert caught.value.allowed == "exit1, exit2, final"


def test_a_precision_that_is_not_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'uint8'"):
        check_recipe(recipes.read("digits", ["quantize.precisions=[unit8]"]))
    with pytest.raises(RecipeError, match="named once"):
        recipes.read("digits", ["quantize.precisions=[int8, int8]"])


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (["quantize.precisions=[int8, fp8]", "export.opset=16"], "exported with opset 16"),
        (["quantize.precisions=[bf16]"], "cannot run bf16 here"),
    ],
)
def test_a_precision_that_would_fail_after_the_training_is_refused(settings: list[str], match: str) -> None:
    with pytest.raises(RecipeError, match=match) as caught:
        check_recipe(recipes.read("digits", settings))
    assert "export.opset" in caught.value.next_step


@pytest.mark.parametrize("opset", [16, 18, 23])
def test_precisions_that_go_are_let_through(opset: int) -> None:
    which = "[int8, uint8, fp16]" if opset == 16 else "[int8, uint8, fp16, fp8]"
    check_recipe(recipes.read("digits", [f"quantize.precisions={which}", f"export.opset={opset}"]))


def test_too_few_images_to_take_ranges_from_are_refused() -> None:
    few = ["data.train_limit=40", "quantize.precisions=[int8]", "method=baseline", "controls=[]"]
    with pytest.raises(DataError, match="40 training samples"):
        check_data(recipes.read("digits", few), data.DatasetCache())


def test_exits_to_keep_are_checked_where_a_layout_has_several() -> None:
    few = ["exits.count=3", "export.truncate_at=[final]", "export.keep_exits=[exit22]"]
    with pytest.raises(UnknownNameError, match="Did you mean 'exit2'") as caught:
        check_recipe(recipes.read("digits", few))
    assert "export.keep_exits" in caught.value.next_step
    with pytest.raises(UsageError, match="only exit to keep"):
        check_recipe(recipes.read("digits", ["export.keep_exits=[final]"]))
    check_recipe(recipes.read("digits", [*few, "export.layouts=[single]"]))
    check_recipe(
        recipes.read("digits", ["exits.count=3", "export.truncate_at=[final]", "export.keep_exits=[exit3, exit1]"])
    )


def test_nothing_is_trained_or_written_when_the_end_is_known(tmp_path: Path) -> None:
    with pytest.raises(SdcompressError):
        run_pipeline(recipes.read("digits", ["data.validation=0"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (["controls=[{name: born_again, generations: 40}]"], "40 phases"),
    ],
)
def test_a_control_that_cannot_train_is_refused_before_the_method_trains(settings: list[str], match: str) -> None:
    with pytest.raises(RecipeError, match=match):
        check_recipe(recipes.read("digits", settings))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (["controls=[{name: r_drop}]"], "'r_drop' compares two passes"),
        (["controls=[{name: ps_kd}]", "train.augment.cutmix=1"], "'ps_kd'.*cannot be mixed"),
        (["train.accumulate=7"], "does not divide"),
        (["model.weights=nowhere"], "no weights at nowhere"),
    ],
)
def test_what_the_network_cannot_give_is_refused_before_anything_trains(
    settings: list[str], match: str, tmp_path: Path
) -> None:
    with pytest.raises(SdcompressError, match=match):
        run_pipeline(recipes.read("digits", settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()
