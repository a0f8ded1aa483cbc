from __future__ import annotations

import pytest
import torch
from networks import pictures

from sdcompress.models.build import build
from sdcompress.models.cost import costs
from sdcompress.schema import recipe


def network(name: str, image: tuple[int, int, int] = (3, 32, 32), **exits: object):
    return build(recipe.Model(name=name), recipe.Exits(**exits), outputs=(100,), inputs=pictures(*image))


def test_resnet8_by_hand():
    net = network("cifar:resnet8", modules=["conv1", "layer1"], head="linear")
    stem = 3 * 16 * 9 * 32 * 32
    block = 2 * 16 * 16 * 9 * 32 * 32
    second = (16 * 32 * 9 + 32 * 32 * 9 + 16 * 32) * 16 * 16
    third = (32 * 64 * 9 + 64 * 64 * 9 + 32 * 64) * 8 * 8
    first, middle, final = costs(net, pictures(3, 32, 32))
    head = 16 * 100 + 100
    assert first.macs == stem + 16 * 100
    assert first.parameters == 3 * 16 * 9 + head
    assert middle.macs == stem + block + 16 * 100
    assert middle.parameters == (3 * 16 * 9 + 32) + 2 * (16 * 16 * 9 + 32) + head
    assert final.macs == stem + block + second + third + 64 * 100
    assert final.parameters == sum(p.numel() for p in net.backbone.parameters())


# MACs of each exit as a share of the whole network's, as counted from the published code on ResNet-18 at 32 px
SHARES = {
    "linear": (0.275, 0.517, 0.758),
    "bottleneck": (0.322, 0.534, 0.766),
    "sepconv": (0.293, 0.528, 0.764),
    "attention": (0.297, 0.533, 0.768),
}


@pytest.mark.parametrize("head", SHARES)
def test_resnet18_exits_cost_what_the_published_heads_cost(head):
    net = network("cifar:resnet18", head=head)
    assert net.taps == ("layer1", "layer2", "layer3")
    cost = costs(net, pictures(3, 32, 32))
    assert cost[-1].macs == pytest.approx(555.5e6, rel=1e-3)
    assert cost[-1].parameters == 11_220_132
    assert [c.macs / cost[-1].macs for c in cost[:-1]] == pytest.approx(SHARES[head], abs=6e-4)


def test_attention_counts_and_class_tokens_and_positions_are_parameters():
    net = network("timm:vit_tiny_patch16_224", (3, 32, 32), count=1, head="linear")
    first, final = costs(net, pictures(3, 32, 32))
    tokens, width, depth = 5, 192, 12
    patches = 4 * 3 * 256 * width
    block = tokens * 12 * width**2 + 2 * tokens**2 * width
    assert final.macs == patches + depth * block + 100 * width
    assert net.taps == ("blocks.5",)
    assert first.macs == patches + 6 * block + 100 * width
    assert final.parameters == sum(p.numel() for p in net.backbone.parameters())


def test_the_network_is_left_as_it_was():
    net = network("cifar:resnet8", count=2).train()
    net.backbone.conv1.requires_grad_(False)
    hooks = sum(len(module._forward_hooks) for module in net.modules())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert costs(net, pictures(3, 32, 32)) == costs(net.eval(), pictures(3, 32, 32))
    assert not net.backbone.conv1.weight.requires_grad
    assert net.backbone.layer1[0].path[0].weight.requires_grad
    assert hooks == sum(len(module._forward_hooks) for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
