"""FastBERT by hand: two phases, and who learns in which."""

from __future__ import annotations

import math

import pytest
import torch
from steps import step_of
from torch import nn

from sdcompress.methods.fastbert import FastBert
from sdcompress.models.outputs import Outputs


def test_by_hand_and_who_learns_in_which_phase() -> None:
    logits = tuple(torch.tensor([[p, 1 - p]]).log().requires_grad_() for p in (0.5, 0.9))
    outputs = Outputs(logits, logits, logits)
    steps = [step_of([0], phase=phase) for phase in range(2)]
    first, then = (FastBert()(outputs, step, nn.Module()) for step in steps)
    assert first.keys() == {"ce"}
    assert first["ce"].item() == pytest.approx(-math.log(0.9), rel=1e-5)
    assert then.keys() == {"kd"}
    assert then["kd"].item() == pytest.approx(0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5), rel=1e-5)
    then["kd"].backward()
    assert [z.grad is not None for z in logits] == [True, False]


def test_exits_and_network_are_softened() -> None:
    logits = tuple(torch.tensor([[p, 1 - p]]).log() for p in (0.5, 0.9))
    terms = FastBert(temperature=2.0)(Outputs(logits, logits, logits), step_of([0], phase=1), nn.Module())
    # halving the logits turns 0.9 : 0.1 into 3 : 1; T^2 = 4
    assert terms["kd"].item() == pytest.approx(4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)), rel=1e-5)


def test_a_finished_network_needs_no_first_phase() -> None:
    (only,) = FastBert(backbone_share=0).phases
    assert only.freeze_backbone
    logits = (torch.zeros(1, 2, requires_grad=True), torch.ones(1, 2))
    step = step_of([0])
    assert FastBert(backbone_share=0)(Outputs(logits, logits, logits), step, nn.Module()).keys() == {"kd"}


def test_labels_do_not_matter_in_the_second_phase() -> None:
    logits = tuple(torch.randn(3, 4) for _ in range(3))
    found = [
        FastBert()(
            Outputs(logits, logits, logits),
            step_of(labels, count=4, phase=1),
            nn.Module(),
        )["kd"].item()
        for labels in (torch.tensor([0, 1, 2]), torch.tensor([3, 3, 3]))
    ]
    assert found[0] == found[1]


def test_the_backbone_is_frozen_in_the_second_phase_alone() -> None:
    first, then = FastBert(backbone_share=0.25).phases
    assert (first.share, first.freeze_backbone) == (0.25, False)
    assert (then.share, then.freeze_backbone) == (0.75, True)
