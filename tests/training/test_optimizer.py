"""Learning rates worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from networks import pictures
from torch import nn

from sdcompress.models.build import build as build_network
from sdcompress.schema import recipe
from sdcompress.training.optimizer import Ema, build, depths, rate_factors
from sdcompress.training.schedule import rate


def lr(spec: recipe.Schedule, step: int, *, steps_per_epoch: int = 10, epochs: int = 10) -> float:
    return rate(spec, lr=1.0, step=step, steps_per_epoch=steps_per_epoch, epochs=epochs)


def test_cosine_goes_from_one_through_half_to_the_last_rate() -> None:
    spec = recipe.Schedule(name="cosine", final_lr_ratio=0.1)
    assert lr(spec, 0) == 1.0
    assert lr(spec, 50) == pytest.approx(0.1 + 0.9 * 0.5)
    assert lr(spec, 25) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.sqrt(0.5)))
    assert lr(spec, 100) == pytest.approx(0.1)


def test_warm_up_rises_linearly_and_then_the_schedule_starts() -> None:
    spec = recipe.Schedule(name="cosine", warmup_epochs=2)
    assert [lr(spec, step) for step in (0, 9, 19)] == pytest.approx([1 / 20, 0.5, 1.0])
    assert lr(spec, 20) == 1.0
    assert lr(spec, 60) == pytest.approx(0.5)  # half way between epoch 2 and epoch 10


def test_multistep_multiplies_at_each_milestone() -> None:
    spec = recipe.Schedule(name="multistep", milestones=(3, 6), gamma=0.1)
    assert [lr(spec, step) for step in (29, 30, 59, 60)] == pytest.approx([1.0, 0.1, 0.1, 0.01])


def test_constant_stays() -> None:
    assert lr(recipe.Schedule(name="constant"), 99) == 1.0


def test_only_matrices_decay() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    optimizer = build(recipe.Optimizer(weight_decay=0.1), net.parameters())
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay[id(net[0].weight)] == 0.1
    assert decay[id(net[0].bias)] == decay[id(net[1].weight)] == decay[id(net[1].bias)] == 0.0


def test_frozen_parameters_are_left_out() -> None:
    net = nn.Linear(2, 3)
    net.bias.requires_grad_(requires_grad=False)
    optimizer = build(recipe.Optimizer(name="adamw", lr=0.1), net.parameters())
    assert [p is net.weight for group in optimizer.param_groups for p in group["params"]] == [True]


def test_average_is_the_recursion_written_out() -> None:
    net = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.fill_(0.0)
    ema = Ema(net, 0.5)
    expected = 0.0
    for step, value in enumerate([4.0, 8.0, -2.0, 6.0, 1.0, 3.0, 7.0, 9.0, 5.0]):
        with torch.no_grad():
            net.weight.fill_(value)
        ema.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert ema.net.weight.item() == pytest.approx(expected)
    assert decay == 0.5  # the last step is past the rise


def test_average_follows_running_statistics_and_counters() -> None:
    net = nn.BatchNorm1d(1)
    ema = Ema(net, 0.9)
    net(torch.tensor([[1.0], [3.0]]))
    ema.update(0)
    assert ema.net.num_batches_tracked.item() == 1
    assert ema.net.running_mean.item() == pytest.approx(0.9 * net.running_mean.item(), rel=1e-6)


def test_a_tensor_with_two_names_is_averaged_once() -> None:
    net = nn.ModuleList([nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1)])
    tied = nn.Linear(1, 1, bias=False)
    tied.weight = net[0].weight
    net.extend([tied, net[1]])
    with torch.no_grad():
        net[0].weight.fill_(0.0)
        ema = Ema(net, 0.9)
        net[0].weight.fill_(10.0)
        net[1].running_mean.fill_(10.0)
    ema.update(1000)
    # 0.9 * 0 + 0.1 * 10
    assert ema.net[2].weight.item() == pytest.approx(1.0)
    assert ema.net[3].running_mean.item() == pytest.approx(1.0)


def test_a_teaching_average_normalises_as_the_network_that_it_follows() -> None:
    net, batch = nn.BatchNorm1d(1), torch.tensor([[10.0], [30.0]])
    ema = Ema(net, 0.9)
    ema.use_batch_statistics()
    torch.testing.assert_close(ema.net(batch), torch.tensor([[-1.0], [1.0]]))  # mean 20, deviation 10
    assert (ema.net.running_mean.item(), ema.net.running_var.item()) == (0.0, 1.0)  # only ``update`` moves them
    net.eval()  # as a frozen backbone is
    ema.use_batch_statistics()
    torch.testing.assert_close(ema.net(batch), batch, rtol=1e-4, atol=0)  # mean 0, variance 1


def test_infinite_entries_are_copied_and_the_others_of_their_buffer_averaged() -> None:
    """A mask holds minus infinity for ever, an observer's smallest value begins at plus infinity."""
    net = nn.Module()
    net.register_buffer("mask", torch.tensor([0.0, -math.inf, 4.0]))
    net.register_buffer("smallest", torch.tensor(math.inf))
    ema = Ema(net, 0.9)
    net.mask.copy_(torch.tensor([10.0, -math.inf, 4.0]))
    net.smallest.fill_(-3.0)
    ema.update(0)  # decay 0.1
    torch.testing.assert_close(ema.net.mask, torch.tensor([9.0, -math.inf, 4.0]))
    assert ema.net.smallest.item() == -3.0


def test_blocks_are_counted_by_the_numbers_in_names() -> None:
    names = ["stem.weight", "bn.bias", "blocks.0.0.conv.weight", "blocks.0.1.conv.weight", "blocks.1.0.conv.weight"]
    found = depths([*names, "conv_head.weight"])
    assert list(found.values()) == [0, 0, 1, 2, 3, 4]
    assert list(depths(["layer1.0.path.0.weight", "layer1.0.path.1.weight", "layer2.0.path.0.weight"]).values()) == [
        1,
        1,
        2,
    ]
    of_stages = ["stages.0.blocks.0.a.weight", "stages.0.blocks.1.a.weight", "stages.1.downsample.weight"]
    assert list(depths(of_stages).values()) == [1, 2, 3]
    assert list(depths(["embeddings.w.weight", "encoder.layer.0.a.weight", "encoder.layer.1.a.weight"]).values()) == [
        0,
        1,
        2,
    ]
    assert depths(["conv.weight", "fc.weight"]) == {"conv.weight": 0, "fc.weight": 0}


def test_heads_have_their_rate_and_each_block_less_than_the_next() -> None:
    net = build_network(
        recipe.Model(name="cifar:resnet8"),
        recipe.Exits(count=1, head="linear"),
        outputs=(10,),
        inputs=pictures(1, 16, 16),
    )
    spec = recipe.Optimizer(lr=0.1, head_lr=0.3, layer_decay=0.5)
    optimizer = build(spec, net.parameters(), rate_factors(spec, net, nn.Module()))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    blocks = [net.backbone.conv1.weight, *(getattr(net.backbone, f"layer{k}")[0].path[0].weight for k in (1, 2, 3))]
    assert [rates[id(one)] for one in blocks] == pytest.approx(
        [0.1 / 8, 0.1 / 4, 0.1 / 2, 0.1]
    )  # 3 blocks, none behind
    assert rates[id(net.backbone.fc.bias)] == rates[id(net.heads[0].classifier.weight)] == pytest.approx(0.3)
    assert all(group["lr"] == pytest.approx(0.1 * group["lr_scale"]) for group in optimizer.param_groups)
    plain = build(recipe.Optimizer(), net.parameters(), rate_factors(recipe.Optimizer(), net, nn.Module()))
    assert [group["lr_scale"] for group in plain.param_groups] == [1.0, 1.0]
