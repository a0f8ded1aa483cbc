"""What one step before the training finds: parameters that no loss reaches, and norms that have no variance."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sdcompress import data
from sdcompress.checkpoint import open_checkpoint
from sdcompress.errors import RecipeError
from sdcompress.schema.recipe import Recipe
from sdcompress.training.hardware import launch, no_gradient_missing
from sdcompress.training.preflight import check_with_data
from sdcompress.training.run import train
from sdcompress.training.trainer import Trainer

Small = Callable[..., Recipe]

OWN = """
import torch
from torch import nn

class Own(nn.Sequential):
    # with a projection that nothing uses, and a mask of minus infinity that nothing reads
    def __init__(self, outputs, inputs, norm="group", fill=-float("inf"), idle=True):
        norms = {"group": lambda c: nn.GroupNorm(2, c), "batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d}
        super().__init__(
            nn.Sequential(nn.Conv2d(inputs[0].shape[1], 8, 3, stride=2, padding=1), norms[norm](8), nn.ReLU()),
            nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), norms[norm](16), nn.ReLU()),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, outputs[0]),
        )
        if idle:
            self.projection = nn.Linear(8, 4)
        self.register_buffer("mask", torch.triu(torch.full((4, 4), fill), 1))

    def forward(self, x):
        for part in list(self)[:5]:
            x = part(x)
        return x
"""
SETTINGS = ["model.name=own_nets:Own", "exits.count=1", "train.epochs=1", "train.augment.crop=0"]


@pytest.fixture(autouse=True)
def _own_nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_nets.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


def trainer(recipe: Recipe, out: Path) -> Trainer:
    return Trainer(recipe, data.load(recipe.data, seed=0, modality=recipe.modality), launch(recipe.train), out)


def test_a_parameter_outside_the_loss_is_named_and_stays_as_it_was(small: Small, tmp_path: Path) -> None:
    recipe = small(*SETTINGS)
    with pytest.warns(UserWarning, match=r"2 parameters take no part.*: projection\.bias, projection\.weight\."):
        first = trainer(recipe, tmp_path).net.state_dict()["backbone.projection.weight"].clone()
    with pytest.warns(UserWarning, match="2 parameters"):
        trained = train(recipe, tmp_path / "run").network().state_dict()
    assert torch.equal(trained["backbone.projection.weight"], first)


def test_one_step_before_the_training_changes_nothing_of_it(small: Small, tmp_path: Path) -> None:
    """Running statistics, memories and gradients are what they were, also in a method of two phases."""
    made = trainer(small("method=eed+ps_kd", "train.augment.crop=2"), tmp_path)
    assert all(parameter.grad is None for parameter in made.net.parameters())
    state = made.net.state_dict()
    assert not any(state[name].any() for name in state if "running_mean" in name or "num_batches" in name)
    assert not any(memory.any() for memory in made.learner.resumable_state().state.buffers())
    two = trainer(small("method=fastbert"), tmp_path)
    assert all(parameter.requires_grad for parameter in two.net.parameters())


@pytest.mark.parametrize("method", ["byot", "fastbert", "born_again", "ema_teacher", "med", "dlb"])
def test_a_network_that_is_used_whole_is_trained_without_a_word(small: Small, tmp_path: Path, method: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer(small(f"method={method}", "train.epochs=3"), tmp_path)


def test_a_parameter_that_is_left_out_later_is_a_sentence_under_ddp() -> None:
    with pytest.raises(RecipeError, match="took no part in that of a later one"), no_gradient_missing():
        raise RuntimeError("Expected to have finished reduction in the prior iteration before starting a new one.")
    with pytest.raises(RuntimeError, match="another"), no_gradient_missing():
        raise RuntimeError("another")


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        # 4 x 4 images have one place after two strides, and each part of the step one image
        (
            ["model.options={norm: batch, idle: false}", "train.accumulate=32"],
            r"BatchNorm2d '1\.1' gets 1 x 16 x 1 x 1",
        ),
        (["model.options={norm: batch, idle: false}", "train.batch_size=1"], "gets 1 x 16 x 1 x 1"),
    ],
)
def test_a_norm_without_variance_is_refused_before_anything_is_written(
    small: Small, tmp_path: Path, settings: list[str], found: str
) -> None:
    recipe = small(*SETTINGS, "modality.image_size=4", "method=baseline", *settings)
    with pytest.raises(RecipeError, match=found) as caught:
        train(recipe, tmp_path / "run")
    assert "at least 2 values" in caught.value.allowed
    assert "modality.image_size" in caught.value.next_step
    assert not (tmp_path / "run").exists()
    with pytest.raises(RecipeError, match=found):
        check_with_data(recipe, data.load(recipe.data, seed=0, modality=recipe.modality))


def test_infinite_entries_of_a_buffer_are_no_divergence_and_survive_an_average(small: Small, tmp_path: Path) -> None:
    recipe = small(
        *SETTINGS, "model.options={idle: false, fill: -.inf}", "train.ema_decay=0.9", "train.checkpoint_steps=2"
    )
    done = train(recipe, tmp_path / "run")
    mask = done.network().state_dict()["backbone.mask"]
    assert torch.equal(mask, torch.triu(torch.full((4, 4), -math.inf), 1))
    written = json.loads((done.path / "state.json").read_text())
    assert written["recipe"]["model"]["options"] == {"idle": False, "fill": "-.inf"}
    assert open_checkpoint(tmp_path / "run").recipe.model.options["fill"] == -math.inf


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_or_another_entry_that_is_not_finite_is_one(small: Small, tmp_path: Path, value: float) -> None:
    made = trainer(small(*SETTINGS, "model.options={idle: false}"), tmp_path)
    assert all(torch.isfinite(tensor).all() for tensor in made.learner.tensors_checked_finite())
    made.net.backbone.mask[1, 0] = value
    assert not all(torch.isfinite(tensor).all() for tensor in made.learner.tensors_checked_finite())
