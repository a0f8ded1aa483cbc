"""Born-again networks by hand: generations, and who teaches whom."""

from __future__ import annotations

import math

import pytest
import torch
from steps import step_of
from torch import nn

from sdcompress.methods.born_again import BornAgain
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch

EVEN, SURE = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()


def _batch(phase: int, teacher: torch.Tensor | None = None) -> Batch:
    said = Outputs((teacher,), (), ()) if teacher is not None else None
    return step_of([0], phase=phase, teacher=said)


def test_the_first_generation_has_no_teacher() -> None:
    terms = BornAgain()(Outputs((EVEN,), (), ()), _batch(0), nn.Module())
    assert terms.keys() == {"ce"}
    assert terms["ce"].item() == pytest.approx(math.log(2), rel=1e-5)


def test_a_later_generation_by_hand_and_no_gradient_reaches_its_teacher() -> None:
    now, before = EVEN.clone().requires_grad_(), SURE.clone().requires_grad_()
    terms = BornAgain(kd_weight=0.25, temperature=2.0)(Outputs((now,), (), ()), _batch(2, before), nn.Module())
    assert terms["ce"].item() == pytest.approx(0.75 * math.log(2), rel=1e-5)
    # halving the logits turns 0.9 : 0.1 into 3 : 1; T^2 = 4
    assert terms["kd"].item() == pytest.approx(0.25 * 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)), rel=1e-5)
    terms["kd"].backward()
    assert now.grad is not None
    assert before.grad is None


def test_all_generations_but_the_first_are_born_again() -> None:
    phases = BornAgain(generations=4).phases
    assert [phase.restart for phase in phases] == [False, True, True, True]
    assert sum(phase.share for phase in phases) == pytest.approx(1)
