from __future__ import annotations

import pytest
import torch

from sdcompress.errors import UnknownNameError
from sdcompress.models.backbones.timm import timm


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [
        ("resnet18", 1, 40),
        ("vit_tiny_patch16_224", 3, 48),
        ("swin_tiny_patch4_window7_224", 3, 64),
        ("mobilenetv3_small_050.lamb_in1k", 3, 32),
    ],
)
def test_classes_channels_and_size_are_the_data_sets(name, channels, size):
    net = timm(name, classes=7, image=(channels, size, size), pretrained=False).eval()
    with torch.no_grad():
        assert net(torch.rand(2, channels, size, size)).shape == (2, 7)


def test_unknown_models_name_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet18'") as error:
        timm("resnett18", classes=7, image=(3, 32, 32), pretrained=False)
    assert len(error.value.allowed.split(", ")) == 8


def test_options_reach_the_model_and_unknown_ones_are_refused():
    net = timm("vit_tiny_patch16_224", classes=7, image=(3, 32, 32), pretrained=False, depth=2)
    assert len(net.blocks) == 2
    with pytest.raises(TypeError, match="no_such_option"):
        timm("resnet18", classes=7, image=(3, 32, 32), pretrained=False, no_such_option=1)
