"""DDGSD by hand, and whom it teaches."""

from __future__ import annotations

import math

import pytest
import torch
from steps import samples_of, step_of
from torch import Tensor, nn

from sdcompress.methods.ddgsd import Ddgsd
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import SecondView

EVEN, SURE = (torch.tensor([[p, 1 - p]]).log().expand(2, 2) for p in (0.5, 0.9))
FEATURES = torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.tensor([[0.0, 2.0], [0.0, 2.0]])


def _terms(one: Tensor, two: Tensor, **parameters: float) -> dict[str, Tensor]:
    outputs, other = (Outputs((z,), (f,), (f,)) for z, f in zip((one, two), FEATURES, strict=True))
    labels = torch.tensor([0, 0])
    step = step_of(labels, labels, second=SecondView(other, samples_of(labels, labels)))
    return Ddgsd(**parameters)(outputs, step, nn.Module())


def test_by_hand() -> None:
    terms = _terms(EVEN, SURE, kd_weight=0.5, temperature=1.0, feature_weight=0.1)
    assert terms["ce"].item() == pytest.approx((math.log(2) - math.log(0.9)) / 2, rel=1e-5)
    there = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    back = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert terms["kd"].item() == pytest.approx(0.5 * (there + back) / 2, rel=1e-5)
    # the means are (2, 0) and (0, 2)
    assert terms["feature"].item() == pytest.approx(0.1 * (4 + 4) / 2)


def test_both_views_are_softened() -> None:
    # halving the logits turns 0.9 : 0.1 into 3 : 1; T^2 = 4
    there = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    back = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert _terms(EVEN, SURE, temperature=2.0)["kd"].item() == pytest.approx(4 * (there + back) / 2, rel=1e-5)


def test_each_view_has_the_targets_that_moved_with_it() -> None:
    labels, moved = torch.tensor([0, 0]), torch.tensor([1, 1])
    outputs, other = (Outputs((z,), (f,), (f,)) for z, f in zip((EVEN, SURE), FEATURES, strict=True))
    step = step_of(labels, labels, second=SecondView(other, samples_of(moved, labels)))
    terms = Ddgsd()(outputs, step, nn.Module())
    assert terms["ce"].item() == pytest.approx((math.log(2) - math.log(0.1)) / 2, rel=1e-5)


def test_each_view_is_taught_as_if_the_other_were_fixed() -> None:
    one, two = (z.clone().requires_grad_() for z in (EVEN, SURE))
    _terms(one, two, temperature=1.0)["kd"].backward()
    # d KL(q || p) / dz = p - q, halved by the two views and by the two samples
    assert one.grad is not None
    torch.testing.assert_close(one.grad, (EVEN.exp() - SURE.exp()) / 4)
    torch.testing.assert_close(two.grad, (SURE.exp() - EVEN.exp()) / 4)
