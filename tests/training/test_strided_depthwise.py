"""Under bfloat16 on a CPU, strided depthwise convolutions compute in float32, and nothing else changes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from sdcompress.data import DatasetCache
from sdcompress.schema.recipe import Recipe
from sdcompress.training.hardware import launch
from sdcompress.training.strided_depthwise import keep_in_float32
from sdcompress.training.trainer import Trainer


def depthwise(*, stride: int | tuple[int, int], groups: int = 4) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(4, 4, 3, stride=stride, padding=1, groups=groups)


@pytest.mark.parametrize("stride", [2, (1, 2)])
def test_a_strided_one_computes_the_bits_of_float32_under_autocast(stride: int | tuple[int, int]) -> None:
    plain, kept = depthwise(stride=stride), depthwise(stride=stride)
    keep_in_float32(kept)
    images = torch.randn(2, 4, 8, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        given = kept(images)
    assert given.dtype == torch.float32
    assert torch.equal(given, plain(images.float()))
    given.sum().backward()
    plain(images.float()).sum().backward()
    assert torch.equal(kept.weight.grad, plain.weight.grad)


class Wider(nn.Conv2d):
    """Pads itself, as the convolutions of networks that come from TensorFlow."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        return super().forward(nn.functional.pad(input, (0, 1, 0, 1)))


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


def wider() -> nn.Conv2d:
    torch.manual_seed(0)
    return Wider(4, 4, 3, stride=2, groups=4)


def parametrized() -> nn.Conv2d:
    made = depthwise(stride=2)
    nn.utils.parametrize.register_parametrization(made, "weight", Doubled())
    return made


@pytest.mark.parametrize("make", [wider, parametrized])
def test_those_that_pad_or_parametrize_themselves_still_do(make: Callable[[], nn.Conv2d]) -> None:
    plain, kept = make(), nn.Sequential(make())
    keep_in_float32(kept)
    keep_in_float32(kept)  # nothing is done twice
    images = torch.randn(2, 4, 8, 8)
    expected = plain(images)
    for net in (kept, copy.deepcopy(kept)):
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(net(images), expected)
    assert [*kept[0].state_dict()] == [*plain.state_dict()]


@pytest.mark.parametrize("net", [depthwise(stride=1), depthwise(stride=2, groups=2), depthwise(stride=2, groups=1)])
def test_other_convolutions_stay_in_bfloat16(net: nn.Conv2d) -> None:
    keep_in_float32(net)
    with torch.autocast("cpu", torch.bfloat16):
        assert net(torch.randn(2, 4, 8, 8)).dtype == torch.bfloat16


def test_a_copy_has_weights_of_its_own_and_the_same_names() -> None:
    net = nn.Sequential(depthwise(stride=2))
    names = [*net.state_dict()]
    keep_in_float32(net)
    copied = copy.deepcopy(net)
    with torch.no_grad():
        copied[0].weight.zero_()
    assert [*copied.state_dict()] == names
    assert net[0].weight.abs().sum() > 0
    assert torch.equal(copied(torch.randn(1, 4, 8, 8)), net[0].bias.view(1, 4, 1, 1).expand(1, 4, 4, 4))


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-mixed", torch.float32), ("32-true", torch.bfloat16)])
def test_a_training_in_bfloat16_keeps_those_of_its_heads(
    small: Callable[..., Recipe], tmp_path: Path, precision: str, dtype: torch.dtype
) -> None:
    recipe = small("exits.head=attention", f"train.precision={precision}")
    dataset = DatasetCache()(recipe.data, seed=0, task=recipe.task, modality=recipe.modality)
    net = Trainer(recipe, dataset, launch(recipe.train), tmp_path).net
    strided = [
        module for module in net.modules() if isinstance(module, nn.Conv2d) and module.groups > 1 < max(module.stride)
    ]
    assert strided
    with torch.autocast("cpu", torch.bfloat16):
        assert {module(torch.randn(1, module.in_channels, 8, 8)).dtype for module in strided} == {dtype}
