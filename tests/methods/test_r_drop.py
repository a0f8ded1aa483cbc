"""R-Drop by hand, and that both passes learn from both."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from steps import samples_of, step_of
from torch import nn

from sdcompress.methods.r_drop import RDrop
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import SecondView


def test_by_hand_and_gradients_flow_through_both_arguments() -> None:
    one, two = (torch.tensor([[p, 1 - p]]).log().requires_grad_() for p in (0.5, 0.9))
    outputs, other = (Outputs((z,), (z,), (z,)) for z in (one, two))
    label = torch.tensor([0])
    step = step_of(label, label, second=SecondView(other, samples_of(label, label)))
    terms = RDrop(consistency_weight=0.3)(outputs, step, nn.Module())
    assert terms["ce"].item() == pytest.approx((math.log(2) - math.log(0.9)) / 2, rel=1e-5)
    there = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    back = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert terms["consistency"].item() == pytest.approx(0.3 * (there + back) / 2, rel=1e-5)
    terms["consistency"].backward()
    assert one.grad is not None
    taught_only = one.detach().exp() - two.detach().exp()  # what one would learn if only two were the teacher
    assert not torch.allclose(one.grad, 0.15 * taught_only)

    def divergence(z: torch.Tensor) -> torch.Tensor:
        p, q = F.log_softmax(z, 1), F.log_softmax(two.detach(), 1)
        return 0.15 * ((p.exp() * (p - q)).sum() + (q.exp() * (q - p)).sum())

    (expected,) = torch.autograd.grad(divergence(one), one)
    torch.testing.assert_close(one.grad, expected)


def test_it_sees_the_very_images_again() -> None:
    view = RDrop().needs.view
    assert view is not None
    assert not view.augmented
    assert RDrop().needs.dropout
