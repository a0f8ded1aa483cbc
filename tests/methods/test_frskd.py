"""FRSKD by hand, and whom it teaches."""

from __future__ import annotations

import math

import pytest
import torch
from steps import classes, step_of
from torch import Tensor, nn

from sdcompress.methods._base import Context
from sdcompress.methods.frskd import Frskd
from sdcompress.models.outputs import Outputs

EVEN, SURE = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
STEP = step_of([0])


class Fixed(nn.Module):
    """A pyramid that gives what it was given."""

    def __init__(self, refined: tuple[Tensor, ...], logits: Tensor) -> None:
        super().__init__()
        self.refined, self.logits = refined, logits

    def forward(self, _maps: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
        return self.refined, self.logits


def test_by_hand() -> None:
    # two channels, two cells: squares (9, 16) + (0, 0) over 2 = (4.5, 8); of length 1: (0.4903, 0.8716)
    found = torch.tensor([[[[3.0, 4.0]], [[0.0, 0.0]]]])
    refined = torch.tensor([[[[1.0, 0.0]]]])
    terms = Frskd(kd_weight=0.5, temperature=2.0, feature_weight=10.0)(
        Outputs((EVEN,), (EVEN,), (found,)), STEP, Fixed((refined,), SURE)
    )
    assert terms["ce"].item() == pytest.approx(math.log(2), rel=1e-5)
    assert terms["teacher"].item() == pytest.approx(-math.log(0.9), rel=1e-5)
    # halving the logits turns 0.9 : 0.1 into 3 : 1; T^2 = 4
    assert terms["kd"].item() == pytest.approx(0.5 * 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)), rel=1e-5)
    length = math.hypot(4.5, 8)
    assert terms["feature"].item() == pytest.approx(10 * ((4.5 / length - 1) ** 2 + (8 / length) ** 2) / 2, rel=1e-5)


def test_the_pyramid_learns_from_labels_alone_and_the_network_through_it() -> None:
    context = Context(4, 4, classes(2), (8,), ((4, 8, 8), (8, 4, 4)))
    method = Frskd(width=8)
    torch.manual_seed(0)
    state = method.state(context)
    maps = tuple(torch.rand(4, *shape, requires_grad=True) for shape in context.maps)
    z = torch.randn(4, 2, requires_grad=True)
    step = step_of([0, 1, 0, 1])
    terms = method(Outputs((z,), (z,), maps), step, state)
    (terms["kd"] + terms["feature"]).backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in state.parameters())
    assert all(feature.grad is not None for feature in (*maps, z))
    for feature in maps:
        feature.grad = None
    terms["teacher"].backward()
    assert all(parameter.grad is not None for parameter in state.parameters())
    assert all(feature.grad is not None and feature.grad.any() for feature in maps)
