from __future__ import annotations

import copy
import pickle

import pytest
import torch
from networks import pictures
from torch import nn

from sdcompress.models.backbones.cifar import cifar
from sdcompress.models.build import build
from sdcompress.models.heads._base import Head, pooled_vector
from sdcompress.models.heads.linear import Linear
from sdcompress.models.multiexit import MultiExit, Tap
from sdcompress.schema import recipe

IMAGE = (3, 16, 16)


@pytest.fixture
def net() -> MultiExit:
    torch.manual_seed(0)
    return build(recipe.Model(name="cifar:resnet8"), recipe.Exits(count=2), outputs=(5,), inputs=pictures(*IMAGE))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, *IMAGE, generator=torch.Generator().manual_seed(0))


def kept(net: MultiExit) -> list[object]:
    return [
        vars(module)[key]
        for module in net.modules()
        for key in ("tapped_output", "output_layer_input")
        if key in vars(module)
    ]


def test_names_and_shapes_are_what_the_forward_pass_gives(net, images):
    outputs = net(images)
    assert net.exit_names == ("exit1", "exit2", "final")
    assert net.taps == ("layer1", "layer2")
    assert [tuple(z.shape) for z in outputs.logits] == [(3, 5)] * 3
    assert [tuple(f.shape) for f in outputs.features] == [(3, d) for d in net.feature_sizes]
    assert [tuple(m.shape[1:]) for m in outputs.maps] == list(net.map_shapes)


def test_the_final_exit_is_the_backbone(net, images):
    net.eval()
    outputs = net(images)
    assert torch.equal(outputs.logits[-1], net.backbone(images))
    assert torch.equal(outputs.logits[-1], net.backbone.fc(outputs.features[-1]))
    assert torch.equal(outputs.features[-1], outputs.maps[-1].mean((2, 3)))
    assert torch.equal(outputs.maps[0], net.backbone[:4](images))


class Dropping(Head):
    def __init__(self) -> None:
        super().__init__(nn.Sequential(*pooled_vector(), nn.Dropout(0.5)), 16, (5,))


class Pixels(Head):
    dense = True

    def __init__(self) -> None:
        super().__init__(nn.Identity(), 16, (5, 16, 16))


def test_vectors_are_kept_of_heads_that_make_the_same_one_in_every_step(net):
    plain = Linear((16, 16, 16), (5,), width=16, final_shape=(64, 4, 4), pool="mean")
    tap = Tap("layer1", (16, 16, 16))
    made = MultiExit(net.backbone, output_layer="fc", taps=[tap] * 3, heads=[plain, Dropping(), Pixels()])
    assert made.pooled_taps == (True, False, False)


def test_an_exit_sends_gradient_through_its_head_to_the_backbone_before_its_tap_only(net, images):
    net(images).logits[0].sum().backward()
    assert net.backbone.conv1.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in [*net.backbone.layer2.parameters(), *net.heads[1].parameters()])


def test_nothing_is_kept_after_a_forward_pass_even_a_failed_one(net, images):
    net(images)
    assert kept(net) == [None] * 4
    handle = net.backbone.layer2.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        net(images)
    handle.remove()
    assert kept(net) == [None] * 4


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_computes_the_same_and_shares_nothing(net, images, clone):
    net.eval()
    expected = net(images)
    twin = clone(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    got = twin(images)
    for one, other in zip(expected, got, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_compiled_without_graph_breaks_it_computes_and_learns_the_same(net, images):
    twin = copy.deepcopy(net)
    compiled = torch.compile(twin, backend="aot_eager", fullgraph=True)
    for model in (net, compiled):
        outputs = model(images)
        torch.stack([z.square().mean() for z in outputs.logits]).sum().backward()
    for eager, fast in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(eager.grad, fast.grad)
    assert kept(twin) == [None] * 4


def test_it_exports_as_a_tuple_of_logits_at_any_batch_size(net, images):
    net.eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(net.logits_only(), (images,), dynamic_shapes=({0: batch},))
    for size in (1, 2, 7):
        more = torch.rand(size, *IMAGE)
        got = program.module()(more)
        assert len(got) == 3
        for ours, theirs in zip(net(more).logits, got, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_channels_last_and_bfloat16_autocast_compute_nearly_the_same(net, images):
    net.eval()
    expected = net(images).logits
    last = net.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    for one, other in zip(expected, last.logits, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net(images)
    for one, other in zip(expected, mixed.logits, strict=True):
        assert other.dtype == torch.bfloat16
        torch.testing.assert_close(one, other.float(), rtol=0.1, atol=0.1)


def test_a_map_with_channels_last_reaches_the_head_with_channels_first(images):
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 6, 4, stride=4)
            self.turn = nn.Identity()
            self.fc = nn.Linear(6, 5)

        def forward(self, x):
            return self.fc(self.turn(self.stem(x).permute(0, 2, 3, 1)).mean((1, 2)))

    tap = Tap("turn", (6, 4, 4), channels_last=True)
    head = Linear((6, 4, 4), (5,), width=8, final_shape=(6, 4, 4), pool="mean")
    net = MultiExit(Turned(), output_layer="fc", taps=[tap], heads=[head], deepest=tap)
    outputs = net(images)
    assert torch.equal(outputs.maps[0], net.backbone.stem(images))
    assert torch.equal(outputs.maps[0], outputs.maps[1])
    torch.testing.assert_close(outputs.features[0], outputs.features[1])


def test_the_feature_of_a_classifier_of_pixels_is_the_mean_over_them():
    class Pixels(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(3, 5)

        def forward(self, images):
            return self.out(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    images = torch.arange(2.0 * 3 * 4 * 6).view(2, 3, 4, 6)
    (feature,) = MultiExit(Pixels(), output_layer="out")(images).features
    # 24 pixels a channel, counted from 0, 24, 48
    assert feature.tolist() == [[11.5, 35.5, 59.5], [83.5, 107.5, 131.5]]


def test_without_exits_it_is_the_backbone_alone(images):
    net = MultiExit(cifar("resnet8", outputs=(5,), inputs=pictures(*IMAGE), pretrained=False), output_layer="fc").eval()
    outputs = net(images)
    assert net.exit_names == ("final",)
    assert (net.taps, net.feature_sizes, net.map_shapes) == ((), (64,), ((64,),))
    assert torch.equal(outputs.logits[0], net.backbone(images))
    assert outputs.maps[0] is outputs.features[0]
