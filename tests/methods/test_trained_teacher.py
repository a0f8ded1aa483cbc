"""The trained teacher by hand, and whom it teaches."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from steps import step_of
from torch import nn

from sdcompress.methods.trained_teacher import TrainedTeacher
from sdcompress.models.outputs import Outputs

EVEN, SURE = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
TEACHER = torch.tensor([[0.8, 0.2]]).log()


def test_by_hand() -> None:
    taught = replace(step_of([0]), teacher=Outputs((EVEN, TEACHER), (), ()))
    terms = TrainedTeacher(kd_weight=0.25, temperature=1.0)(Outputs((EVEN, SURE), (), ()), taught, nn.Module())
    assert terms["ce"].item() == pytest.approx(0.75 * (math.log(2) - math.log(0.9)), rel=1e-5)
    of_even = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    of_sure = 0.8 * math.log(0.8 / 0.9) + 0.2 * math.log(0.2 / 0.1)
    assert terms["kd"].item() == pytest.approx(0.25 * (of_even + of_sure), rel=1e-5)


def test_both_sides_are_softened() -> None:
    taught = replace(step_of([0]), teacher=Outputs((SURE,), (), ()))
    terms = TrainedTeacher(kd_weight=0.25, temperature=2.0)(Outputs((EVEN,), (), ()), taught, nn.Module())
    # halving the logits turns 0.9 : 0.1 into 3 : 1; T^2 = 4
    assert terms["kd"].item() == pytest.approx(0.25 * 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)), rel=1e-5)


def test_every_exit_learns_and_the_teacher_does_not() -> None:
    logits = tuple(EVEN.clone().requires_grad_() for _ in range(3))
    teacher = TEACHER.clone().requires_grad_()
    taught = replace(step_of([0]), teacher=Outputs((teacher,), (), ()))
    TrainedTeacher()(Outputs(logits, (), ()), taught, nn.Module())["kd"].backward()
    assert all(z.grad is not None and z.grad.any() for z in logits)
    assert teacher.grad is None
