"""CS-KD by hand, and whom it teaches."""

from __future__ import annotations

import math

import pytest
import torch
from steps import samples_of, step_of
from torch import nn

from sdcompress.methods.cs_kd import CsKd
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import SecondView


def test_by_hand_and_no_gradient_reaches_the_other_sample() -> None:
    now = torch.tensor([[0.5, 0.5]]).log().requires_grad_()
    other = torch.tensor([[0.9, 0.1]]).log().requires_grad_()
    second = SecondView(Outputs((other,), (other,), (other,)), samples_of([0], torch.tensor([1])))
    step = step_of([0], second=second)
    terms = CsKd(kd_weight=0.5, temperature=2.0)(Outputs((now,), (now,), (now,)), step, nn.Module())
    assert terms["ce"].item() == pytest.approx(math.log(2), rel=1e-5)
    # halving the logits turns 0.9 : 0.1 into 3 : 1; T^2 = 4
    assert terms["kd"].item() == pytest.approx(0.5 * 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)), rel=1e-5)
    terms["kd"].backward()
    assert now.grad is not None
    assert other.grad is None


def test_the_other_sample_is_of_the_same_class_and_only_passed_forward() -> None:
    view = CsKd().needs.view
    assert view is not None
    assert view.samples == "same_stratum"
    assert not view.gradient
