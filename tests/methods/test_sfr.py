"""SFR by hand: transport, grouped channels, dynamic labels; maps and tokens."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from steps import classes, step_of
from torch import Tensor

from sdcompress.methods._base import Context
from sdcompress.methods.sfr import Sfr
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch

EVEN, SURE = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
CONTEXT = Context(1, 1, classes(2), (1, 1), ((1, 1, 2), (2, 1, 2)))


def _step(epoch: int = 0) -> Batch:
    return step_of([0], epoch=epoch)


def _outputs(*maps: Tensor) -> Outputs:
    return Outputs((EVEN, SURE), (EVEN, SURE), maps)


def test_moved_and_scaled_features_cost_nothing_and_turned_ones_their_angle() -> None:
    # Two cells of two channels, at right angles; the deep map's four channels average to the same, moved and scaled.
    shallow = torch.tensor([[[[2.0, 0.0]], [[0.0, 3.0]]]])
    moved = torch.tensor([[[[0.0, 4.0]], [[0.0, 6.0]], [[1.0, 0.0]], [[3.0, 0.0]]]])
    context = Context(1, 1, classes(2), (1, 1), ((2, 1, 2), (4, 1, 2)))
    method = Sfr(transport_weight=2.0)
    terms = method(_outputs(shallow, moved), _step(), method.state(context))
    assert terms["transport"].item() == pytest.approx(0, abs=1e-6)
    even = torch.ones(1, 4, 1, 2)  # at 45 degrees to both cells
    terms = method(_outputs(shallow, even), _step(), method.state(context))
    assert terms["transport"].item() == pytest.approx(2 * (2 - 2 * math.cos(math.pi / 4)), rel=1e-5)


def test_a_cell_without_activity_has_a_bounded_gradient() -> None:
    silent = torch.zeros(1, 2, 1, 2, requires_grad=True)
    context = Context(1, 1, classes(2), (1, 1), ((2, 1, 2), (4, 1, 2)))
    method = Sfr(transport_weight=1.0)
    method(_outputs(silent, torch.ones(1, 4, 1, 2)), _step(), method.state(context))["transport"].backward()
    assert silent.grad is not None
    assert silent.grad.abs().max() < 2e3


def test_the_last_exits_label_is_the_mean_correct_prediction_of_the_epoch_before() -> None:
    method = Sfr(transport_weight=0.0, label_weight=0.5)
    state = method.state(CONTEXT)
    maps = (torch.zeros(1, 1, 1, 2), torch.zeros(1, 2, 1, 2))
    first = method(_outputs(*maps), _step(0), state)["ce"]  # nothing is known yet: the label
    assert first.item() == pytest.approx(math.log(2) - math.log(0.9), rel=1e-5)
    second = method(_outputs(*maps), _step(1), state)["ce"]  # half the label, half 0.9 : 0.1
    assert second.item() == pytest.approx(math.log(2) - 0.95 * math.log(0.9) - 0.05 * math.log(0.1), rel=1e-5)


def test_class_weights_multiply_the_label_and_the_mean_prediction_alike() -> None:
    method = Sfr(transport_weight=0.0, label_weight=0.5)
    state = method.state(CONTEXT)
    outputs = _outputs(torch.zeros(1, 1, 1, 2), torch.zeros(1, 2, 1, 2))
    method(outputs, _step(0), state)
    weighed = replace(_step(1), class_weights=torch.tensor([2.0, 3.0]))
    # the label of the last exit is 0.95 : 0.05, as above
    expected = 2 * math.log(2) - 2 * 0.95 * math.log(0.9) - 3 * 0.05 * math.log(0.1)
    assert method(outputs, weighed, state)["ce"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "shapes",
    [((2, 4, 16, 16), (2, 8, 8, 8), (2, 6, 4, 4)), ((2, 64, 8), (2, 64, 8), (2, 64, 8)), ((2, 8, 4, 4), (2, 3, 2, 2))],
    ids=["maps", "tokens", "more-shallow-channels-than-deep"],
)
def test_the_shallow_maps_are_taught_by_the_deepest(shapes: tuple[tuple[int, ...], ...]) -> None:
    maps = tuple(torch.randn(shape, requires_grad=True) for shape in shapes)
    logits = tuple(torch.randn(2, 2, requires_grad=True) for _ in shapes)
    step = step_of([0, 1])
    method = Sfr()
    terms = method(Outputs(logits, logits, maps), step, method.state(CONTEXT))
    terms["transport"].backward()
    assert all(m.grad is not None and m.grad.isfinite().all() and m.grad.any() for m in maps[:-1])
    assert maps[-1].grad is None
