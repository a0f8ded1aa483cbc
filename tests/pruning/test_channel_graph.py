"""Pruned networks compute what whole ones compute without the removed channels, whatever couples them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from encoders import FAMILIES, INPUTS, encoder
from networks import pictures
from torch import nn

from sdcompress.errors import CheckpointError
from sdcompress.models.build import build
from sdcompress.models.inputs import example_inputs
from sdcompress.models.kept_channels import keep_channels
from sdcompress.models.multiexit import MultiExit
from sdcompress.pruning.channel_graph import ChannelGraph
from sdcompress.pruning.checking import cut_network, deviation, random_inputs
from sdcompress.pruning.cuts import merged
from sdcompress.pruning.importance import unit_scores
from sdcompress.schema.graphs import Tensor
from sdcompress.schema.pruning import ChannelCuts
from sdcompress.schema.recipe import Exits, Model

IMAGES = random_inputs(example_inputs(pictures(3, 32, 32)))
TABLE = (
    Tensor(name="numbers", dtype="float32", shape=("batch", 5)),
    Tensor(name="categories", dtype="int64", shape=("batch", 3), below=9),
)


def network(name: str, head: str, *, outputs: tuple[int, ...] = (5,), inputs: Any = None, **options: Any) -> MultiExit:
    torch.manual_seed(0)
    net = build(
        Model(name=name, options=options),
        Exits(head=head, count=2, width_cap=32),
        outputs=outputs,
        inputs=inputs or pictures(3, 32, 32),
    )
    for parameter in net.parameters():  # biases and factors of norms tell channels apart
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, 0.3, 1.3)
    return net.eval()


def graph_of(net: MultiExit, inputs: Any = IMAGES) -> ChannelGraph:
    return ChannelGraph(net, inputs)


def plain(*layers: nn.Module) -> MultiExit:
    return MultiExit(nn.Sequential(*layers), output_layer=str(len(layers) - 1)).eval()


def halves(graph: ChannelGraph, *, normalised: bool = False) -> dict[int, range]:
    return {
        at: range(0, len(group), 2)
        for at, group in enumerate(graph.groups)
        if len(group) > 1 and group.normalised == normalised
    }


@pytest.mark.parametrize(
    ("name", "head", "options"),
    [
        ("cifar:resnet8", "bottleneck", {}),
        ("cifar:resnet8", "linear", {}),
        ("cifar:resnet8", "sepconv", {}),
        ("cifar:resnet8", "attention", {}),
        ("timm:vit_tiny_patch16_224", "bottleneck", {"depth": 3}),
        ("timm:resnext50_32x4d", "linear", {"layers": (1, 1, 1, 1)}),
        ("timm:mobilenetv3_small_050", "linear", {}),
        ("timm:densenet121", "linear", {"block_config": (2, 2)}),
    ],
)
def test_backbone_and_heads_stay_consistent(name: str, head: str, options: dict[str, Any]) -> None:
    net = network(name, head, **options)
    graph = graph_of(net)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    cuts = graph.cuts(halves(graph))
    assert any(key.startswith("backbone") for key, _ in cuts.kept)
    assert deviation(net, cuts, IMAGES) < 1e-4
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in before.items())
    pruned = cut_network(net, cuts)
    numbers = [sum(parameter.numel() for parameter in each.parameters()) for each in (net, pruned)]
    assert numbers[1] < 0.8 * numbers[0]
    # the graph's own network is whole again
    assert graph.cuts(halves(graph)).record == cuts.record


def test_dense_outputs_stay_consistent() -> None:
    net = network("timm_fcn:resnet18", "dense", outputs=(4, 32, 32), width=16)
    graph = graph_of(net)
    assert deviation(net, graph.cuts(halves(graph)), IMAGES) < 1e-4


def test_what_is_cut_too_little_or_too_much_is_noticed() -> None:
    net = network("cifar:resnet8", "linear")
    graph = graph_of(net)
    cuts = graph.cuts(halves(graph))
    wrong = {key: tuple(range(len(kept))) if key[1] == 1 else kept for key, kept in cuts.kept.items()}
    cuts.kept.update(wrong)  # inputs of other channels than those that are left
    assert deviation(net, cuts, IMAGES) > 1e-2


def test_one_exit_that_is_off_is_noticed() -> None:
    net = network("cifar:resnet8", "linear")
    graph = graph_of(net)
    cuts = graph.cuts(halves(graph))
    key = f"backbone.{net.output_layer}.weight", 1
    cuts.kept[key] = tuple(range(len(cuts.kept[key])))  # of the last exit alone
    assert deviation(net, cuts, IMAGES) > 1e-2
    pruned, whole = cut_network(net, cuts)(*IMAGES).logits, cut_network(net, graph.cuts(halves(graph)))(*IMAGES).logits
    assert [torch.equal(a, b) for a, b in zip(pruned, whole, strict=True)] == [True, True, False]


def test_transposed_convolutions_read_channels_along_their_first_axis() -> None:
    torch.manual_seed(0)
    net = plain(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(8, 6, 2, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip
    graph = graph_of(net)
    cuts = graph.cuts(halves(graph))
    assert {name: len(kept) for name, kept in cuts.kept.items() if name[0] == "backbone.2.weight"} == {
        ("backbone.2.weight", 0): 4,
        ("backbone.2.weight", 1): 3,
    }
    assert deviation(net, cuts, IMAGES) < 1e-4


@pytest.mark.parametrize("family", ["bert", "distilbert", "deberta-v2", "electra"])
def test_heads_and_hidden_units_of_encoders_go_whole(family: str) -> None:
    assert family in FAMILIES
    net, inputs = encoder(family), example_inputs(INPUTS)
    graph = graph_of(net, inputs)
    assert {len(group) for group in graph.groups if group.attention is not None} == {2}
    cuts = graph.cuts(halves(graph))
    assert deviation(net, cuts, inputs) < 1e-4
    pruned = cut_network(net, cuts)
    attention = next(
        pruned.get_submodule(group.name.rpartition(".")[0]) for group in graph.groups if group.attention is not None
    )
    counts = {vars(attention).get(name) for name in ("num_attention_heads", "n_heads")}
    assert 1 in counts
    # the width of the stream is not touched
    assert {len(kept) for (name, axis), kept in cuts.kept.items() if axis == 1 and "embeddings" in name} == set()


@pytest.mark.parametrize("normalised", [False, True])
def test_a_network_of_layer_norms_alone_has_only_channels_that_they_normalise(*, normalised: bool) -> None:
    net = network("mlp:4x12", "linear", inputs=TABLE)
    inputs = random_inputs(example_inputs(TABLE))
    graph = graph_of(net, inputs)
    chosen = halves(graph, normalised=normalised)
    assert bool(chosen) == normalised
    if normalised:
        assert deviation(net, graph.cuts(chosen), inputs) < 1e-4


def test_smallest_filters_are_known_by_hand() -> None:
    net = plain(nn.Conv2d(1, 4, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
    first, last = net.backbone[0], net.backbone[4]
    with torch.no_grad():
        first.weight.copy_(torch.tensor([3.0, 1.0, 4.0, 2.0]).reshape(4, 1, 1, 1))
        last.weight.fill_(1.0)
    graph = ChannelGraph(net, (torch.randn(2, 1, 3, 3),))
    (scores,) = unit_scores(graph, "magnitude")
    # a filter's square, and four ones behind it: (9 + 4) / 2, (1 + 4) / 2, (16 + 4) / 2, (4 + 4) / 2, mean 5.75
    assert scores is not None
    np.testing.assert_allclose(scores, np.array([6.5, 2.5, 10.0, 4.0]) / 5.75, rtol=1e-6)
    cuts = graph.cuts({0: (1, 3)})
    assert cuts.kept == {
        ("backbone.0.weight", 0): (0, 2),
        ("backbone.4.weight", 1): (0, 2),
    }
    assert cuts.sizes == {"backbone.0.out_channels": 2, "backbone.4.in_features": 2}
    pruned = cut_network(net, cuts)
    assert pruned.backbone[0].weight.flatten().tolist() == [3.0, 4.0]


def test_factors_of_batch_norms_rank_and_networks_without_them_have_no_rank() -> None:
    with_norm = plain(
        nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)
    )
    with torch.no_grad():
        with_norm.backbone[1].weight.copy_(torch.tensor([1.0, -0.5, 4.5]))
    inputs = (torch.randn(2, 1, 3, 3),)
    (scores,) = unit_scores(ChannelGraph(with_norm, inputs), "bn_scale")
    assert scores is not None
    np.testing.assert_allclose(scores, [0.5, 0.25, 2.25], rtol=1e-6)
    without = plain(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    assert unit_scores(ChannelGraph(without, inputs), "bn_scale") == (None,)


def test_a_channel_that_changes_no_loss_has_no_importance() -> None:
    net = plain(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with torch.no_grad():
        net.backbone[0].bias.copy_(torch.tensor([1.0, -100.0, 1.0]))  # the second never passes the ReLU
    inputs = (torch.randn(4, 1, 3, 3),)
    graph = ChannelGraph(net, inputs)
    graph.net(*inputs).logits[0].square().sum().backward()
    (scores,) = unit_scores(graph, "taylor")
    assert scores is not None
    assert scores[1] == 0
    assert min(scores[0], scores[2]) > 0


def test_taylor_gives_the_places_of_a_grouped_convolution_their_own_importance() -> None:
    net = plain(
        nn.Conv2d(1, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 4, 1, groups=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 2),
    )  # fmt: skip
    with torch.no_grad():
        net.backbone[0].weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(4, 1, 1, 1))
    graph = ChannelGraph(net, (torch.randn(2, 1, 3, 3),))
    for parameter in graph.net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    graph.net.backbone[0].weight.grad += 1  # so that the filters have 1, 2, 3, 4, and nothing behind them counts
    scores = {
        group.name: (group.units, score)
        for group, score in zip(graph.groups, unit_scores(graph, "taylor"), strict=True)
    }
    units, score = scores["backbone.0"]
    assert units == ((0, 2), (1, 3))  # the same place of both groups
    assert score is not None
    np.testing.assert_allclose(score, [4 / 5, 6 / 5], rtol=1e-6)  # 1 + 3 and 2 + 4


def test_two_rounds_are_recorded_by_the_channels_of_the_whole_network() -> None:
    net = network("cifar:resnet8", "bottleneck")
    graph = graph_of(net)
    first = graph.cuts(halves(graph))
    once = cut_network(net, first)
    second_graph = graph_of(once)
    second = second_graph.cuts(halves(second_graph))
    both = merged(second, first.record)
    twice = network("cifar:resnet8", "bottleneck")
    keep_channels(twice, both.record)
    expected = cut_network(once, second)
    assert all(
        torch.equal(a, b) for a, b in zip(twice.state_dict().values(), expected.state_dict().values(), strict=True)
    )


def test_layers_that_share_a_weight_stay_whole() -> None:
    torch.manual_seed(0)
    first, second, tied, last = (nn.Conv2d(width, 8, 3, padding=1) for width in (3, 8, 8, 8))
    tied.weight = second.weight
    net = plain(first, second, nn.ReLU(), tied, nn.ReLU(), last, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    graph = graph_of(net)
    assert [group.name for group in graph.groups] == ["backbone.5"]
    pruned = cut_network(net, graph.cuts({0: range(4)}))
    assert pruned.backbone.get_submodule("1").weight is pruned.backbone.get_submodule("3").weight


def test_a_size_of_what_is_no_number_is_refused() -> None:
    layer = nn.Conv2d(3, 8, 1)
    layer.colours = ("red", "green")
    record = ChannelCuts(channels=(), sizes={"layer.colours": (1, 1)})
    with pytest.raises(CheckpointError, match="does not fit the network"):
        keep_channels(nn.ModuleDict({"layer": layer}), record)
