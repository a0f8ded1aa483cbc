from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import pictures
from torch import nn

from sdcompress.errors import RecipeError, UnknownNameError
from sdcompress.models.backbones.cifar import cifar
from sdcompress.models.backbones.timm import timm
from sdcompress.models.cutpoints import CutPoint, choose, cut_points, deepest, named

FAMILIES = [
    ("cifar", "resnet8", 32),
    ("cifar", "vgg11_bn", 32),
    ("cifar", "wrn_10_1", 32),
    ("timm", "resnet18", 64),
    ("timm", "vit_tiny_patch16_224", 64),
    ("timm", "swin_tiny_patch4_window7_224", 64),
    ("timm", "convnext_atto", 64),
    ("timm", "mobilenetv3_small_050", 64),
    ("timm", "efficientnet_b0", 64),
    ("timm", "densenet121", 64),
]


def backbone(family: str, name: str, size: int) -> nn.Module:
    torch.manual_seed(0)
    make = {"cifar": cifar, "timm": timm}[family]
    return make(name, outputs=(5,), inputs=pictures(3, size, size), pretrained=False).eval()


class Block(nn.Module):
    """Two paths that meet again."""

    def __init__(self) -> None:
        super().__init__()
        self.path = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())

    def forward(self, x):
        return x + self.path(x)


class Net(nn.Module):
    """At 8 x 8: stem 4*3*64 = 768 MACs, block 4*4*9*64 = 9216, last 2*4*64 = 512, classifier 2*2 = 4."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.block = Block()
        self.last = nn.Sequential(nn.Conv2d(4, 2, 1))
        self.fc = nn.Linear(2, 2)

    def forward(self, x):
        return self.fc(self.last(self.block(self.stem(x))).mean((2, 3)))


def test_the_cut_points_of_a_small_net_and_their_macs_by_hand():
    points = cut_points(Net(), (torch.zeros(2, 3, 8, 8),))
    total = 768 + 9216 + 512 + 4
    assert [(p.name, p.shape, p.aliases) for p in points] == [
        ("stem", (4, 8, 8), ()),
        ("block", (4, 8, 8), ()),
        ("last", (2, 8, 8), ("last.0",)),
    ]
    assert [p.fraction for p in points] == pytest.approx([768 / total, 9984 / total, 10496 / total])
    assert [p.level for p in points] == [1, 0, 0]


def test_the_backbone_is_left_as_it_was():
    net = Net().train()
    net.block.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    cut_points(net, (torch.zeros(2, 3, 8, 8),))
    assert net.training
    assert net.stem.training
    assert not net.block.path.training
    assert not any(module._forward_hooks for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_module_that_is_called_twice_is_no_cut_point():
    class Twice(Net):
        def forward(self, x):
            return self.fc(self.last(self.block(self.block(self.stem(x)))).mean((2, 3)))

    assert [p.name for p in cut_points(Twice(), (torch.zeros(2, 3, 8, 8),))] == ["stem", "last"]


@pytest.mark.parametrize("view", [False, True])
def test_an_output_that_is_overwritten_in_place_is_no_cut_point(view):
    class InPlace(Net):
        def forward(self, x):
            x = self.stem(x)
            (x[:, :2] if view else x).relu_()
            return self.fc(self.last(self.block(x)).mean((2, 3)))

    assert [p.name for p in cut_points(InPlace(), (torch.zeros(2, 3, 8, 8),))] == ["block", "last"]


def test_two_branches_side_by_side_cannot_be_cut():
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3)
            self.fc = nn.Linear(8, 2)

        def forward(self, x):
            return self.fc(torch.cat([self.left(x).mean((2, 3)), self.right(x).mean((2, 3))], 1))

    with pytest.raises(RecipeError, match="another backbone"):
        cut_points(Branches(), (torch.zeros(2, 3, 8, 8),))


def test_code_that_branches_on_values_is_refused_with_the_reason():
    class Values(Net):
        def forward(self, x):
            return super().forward(x if x.sum() > 0 else -x)

    with pytest.raises(RecipeError, match=r"torch\.export cannot follow.*\n.*next"):
        cut_points(Values(), (torch.zeros(2, 3, 8, 8),))


def test_macs_of_attention_count():
    class Attention(nn.Module):
        """On N = 4 tokens of 8 channels: qkv 4*8*24 = 768, attention 2*4*4*8 = 256, classifier 8*2 = 16 MACs."""

        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.norm, self.fc = nn.Linear(8, 24), nn.LayerNorm(8), nn.Linear(8, 2)

        def forward(self, x):
            q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).chunk(3, -1)
            tokens = nn.functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
            return self.fc(self.norm(tokens).mean(1))

    points = {p.name: p.fraction for p in cut_points(Attention(), (torch.zeros(2, 8, 2, 2),))}
    assert points == {"qkv": pytest.approx(768 / 1040), "norm": pytest.approx(1024 / 1040)}


@pytest.mark.parametrize(("family", "name", "size"), FAMILIES, ids=[name for _, name, _ in FAMILIES])
def test_everything_after_a_chosen_cut_depends_on_the_images_through_it_alone(family, name, size):
    net = backbone(family, name, size)
    points = cut_points(net, (torch.zeros(2, 3, size, size),))
    chosen = choose(points, 3 if name != "resnet8" else 2)
    assert [p.fraction for p in chosen] == sorted({p.fraction for p in chosen})
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for point in {*chosen, deepest(points)}:
            seen = []
            module = net.get_submodule(point.name)
            handle = module.register_forward_hook(lambda _m, _i, output, seen=seen: seen.append(output))
            logits = net(images)
            handle.remove()
            assert tuple(seen[0].shape[1:]) == point.shape
            handle = module.register_forward_hook(lambda *_, seen=seen: seen[0])
            assert torch.equal(net(torch.rand_like(images) * 5), logits), point
            handle.remove()
        assert not torch.equal(net(torch.rand_like(images) * 5), logits), "the network ignores its images"


def points_at(*fractions: float, levels: tuple[int, ...] = ()) -> list[CutPoint]:
    levels = levels or (0,) * len(fractions)
    return [CutPoint(f"m{i}", (4, 8, 8), f, levels[i]) for i, f in enumerate(fractions)]


def test_choose_takes_the_nearest_to_even_shares():
    assert [p.name for p in choose(points_at(0.1, 0.2, 0.4, 0.52, 0.7, 0.9), 3)] == ["m1", "m3", "m4"]


def test_choose_prefers_the_outermost_within_its_slack():
    chosen = choose(points_at(0.47, 0.5, 0.9, levels=(0, 1, 0)), 1)
    assert [p.name for p in chosen] == ["m0"]
    chosen = choose(points_at(0.35, 0.5, 0.9, levels=(0, 1, 0)), 1)
    assert [p.name for p in chosen] == ["m1"]


def test_choose_takes_the_last_of_the_places_with_the_same_macs():
    assert [p.name for p in choose(points_at(0.5, 0.5, 0.9), 1)] == ["m1"]


def test_choose_never_takes_a_pooled_map_or_one_after_93_percent():
    points = [*points_at(0.3, 0.6), CutPoint("pool", (4, 1, 1), 0.75), CutPoint("late", (4, 1, 1), 0.95)]
    assert [p.name for p in choose(points, 2)] == ["m0", "m1"]
    with pytest.raises(RecipeError, match="at most 2"):
        choose(points, 3)
    with pytest.raises(RecipeError, match="2 places"):
        choose(points_at(0.3, 0.6, 0.94), 3)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 92), st.integers(0, 3)), min_size=1, max_size=7, unique_by=lambda t: t[0]),
    st.integers(1, 4),
)
def test_choose_is_as_good_as_trying_every_combination(places, count):
    places.sort()
    points = points_at(*(f / 100 for f, _ in places), levels=tuple(level for _, level in places))
    if count > len(points):
        with pytest.raises(RecipeError):
            choose(points, count)
        return

    def cost(chosen):
        distances = [round(1e6 * abs(p.fraction - k / (count + 1))) for k, p in enumerate(chosen, 1)]
        excess = sum(max(0, d - round(1e6 * 0.2 / (count + 1))) for d in distances)
        return excess, sum(p.level for p in chosen), sum(distances)

    assert cost(choose(points, count)) == min(map(cost, itertools.combinations(points, count)))


def test_named_orders_by_execution_and_takes_aliases():
    points = [*points_at(0.2, 0.5), CutPoint("stage", (4, 8, 8), 0.7, 0, ("stage.1", "stage.1.act"))]
    assert [p.name for p in named(points, ["stage.1.act", "m0"])] == ["m0", "stage"]
    with pytest.raises(UnknownNameError, match=r"Did you mean 'stage'"):
        named(points, ["stage1"])
    with pytest.raises(RecipeError, match="twice"):
        named(points, ["stage", "stage.1"])
