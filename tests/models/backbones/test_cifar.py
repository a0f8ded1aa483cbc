from __future__ import annotations

import pytest
import torch
from networks import pictures

from sdcompress.errors import RecipeError, UnknownNameError
from sdcompress.models.backbones.cifar import cifar


def network(name, classes=100, channels=3, pretrained=False):
    return cifar(name, outputs=(classes,), inputs=pictures(channels, 32, 32), pretrained=pretrained)


# kuangliu/pytorch-cifar (ResNet, VGG, 10 classes), xternalz/WideResNet-pytorch (10 classes) and papers (100 classes)
@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("resnet18", 10, 11_173_962),
        ("resnet18", 100, 11_220_132),
        ("resnet34", 10, 21_282_122),
        ("resnet50", 10, 23_520_842),
        ("resnet50", 100, 23_705_252),
        ("vgg16_bn", 10, 14_728_266),
        ("vgg19_bn", 10, 20_040_522),
        ("wrn_16_4", 10, 2_748_890),
        ("wrn_28_10", 10, 36_479_194),
        ("wrn_28_10", 100, 36_536_884),
        ("resnet8", 10, 78_042),
    ],
)
def test_parameter_counts_are_the_published_ones(name, classes, parameters):
    with torch.device("meta"):
        net = network(name, classes)
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "size", "deepest"),
    [("resnet8", 32, 8), ("resnet18", 32, 4), ("resnet50", 32, 4), ("vgg11_bn", 32, 1), ("wrn_10_1", 32, 8)],
)
def test_stages_halve_the_map(name, size, deepest):
    net = network(name, classes=7, channels=1).eval()
    seen = []
    net.pool.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].shape[-2:]))
    with torch.no_grad():
        assert net(torch.rand(2, 1, size, size)).shape == (2, 7)
    assert seen == [(deepest, deepest)]


def test_a_wide_networks_first_shortcut_takes_the_activated_map():
    block = network("wrn_10_2").block1[0].eval()
    torch.nn.init.zeros_(block.conv2.weight)
    images = torch.randn(1, 16, 4, 4)
    torch.testing.assert_close(block(images), block.shortcut(block.bn1(images).relu()))


def test_convolutions_start_as_he_et_al_say():
    torch.manual_seed(0)
    weight = network("resnet18").layer4[1].path[0].weight
    assert weight.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.01)


def test_names_that_do_not_exist():
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet18'"):
        network("resnet19")
    for name in ("wrn_27_10", "wrn_4_1", "wrn_28_0"):
        with pytest.raises(RecipeError, match="6 n"):
            network(name)
    with pytest.raises(RecipeError, match="pretrained"):
        network("resnet18", pretrained=True)
