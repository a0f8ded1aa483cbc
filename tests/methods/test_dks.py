"""DKS by hand, and that every exit is taught by every other."""

from __future__ import annotations

import math

import pytest
import torch
from steps import step_of
from torch import nn

from sdcompress.methods.dks import Dks
from sdcompress.models.outputs import Outputs


def test_by_hand_for_three_exits() -> None:
    shares = (0.5, 0.9, 0.5)
    logits = tuple(torch.tensor([[p, 1 - p]]).log().requires_grad_() for p in shares)
    step = step_of([0])
    terms = Dks(kd_weight=0.5)(Outputs(logits, logits, logits), step, nn.Module())
    assert terms["ce"].item() == pytest.approx(2 * math.log(2) - math.log(0.9), rel=1e-5)
    sure_to_even = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    even_to_sure = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert terms["kd"].item() == pytest.approx(0.5 * 2 * (sure_to_even + even_to_sure), rel=1e-5)
    terms["kd"].backward()
    # as if each teacher were fixed, d KL(q || p) / dz = p - q: the two even exits pull the sure one alike
    gap = torch.tensor([[0.4, -0.4]])
    for z, expected in zip(logits, (-gap, 2 * gap, -gap), strict=True):
        torch.testing.assert_close(z.grad, 0.5 * expected)
