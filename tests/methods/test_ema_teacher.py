"""The averaged teacher by hand, and whom it teaches."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from steps import step_of
from torch import nn

from sdcompress.methods.ema_teacher import EmaTeacher
from sdcompress.models.outputs import Outputs

STUDENT = torch.tensor([[0.5, 0.25, 0.25]]).log()
TEACHER = torch.tensor([[0.8, 0.15, 0.05]]).log()
STEP = step_of([0], count=3)


def test_by_hand() -> None:
    method = EmaTeacher(kd_weight=0.5, temperature=1.0, target_weight=2.0, other_weight=3.0)
    taught = replace(STEP, teacher=Outputs((STUDENT, TEACHER), (), ()))
    terms = method(Outputs((STUDENT, TEACHER), (), ()), taught, nn.Module())
    assert terms["ce"].item() == pytest.approx(math.log(2) - math.log(0.8), rel=1e-5)
    of_label = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    of_others = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    # the last exit says what the teacher says: its divergence is 0
    assert terms["kd"].item() == pytest.approx(0.5 * (2 * of_label + 3 * of_others), rel=1e-5)


def test_both_sides_are_softened() -> None:
    # T 2 halves the logits, which are twice those above; T^2 = 4
    taught = replace(STEP, teacher=Outputs((2 * TEACHER,), (), ()))
    terms = EmaTeacher(temperature=2.0)(Outputs((2 * STUDENT,), (), ()), taught, nn.Module())
    of_label = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    of_others = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert terms["kd"].item() == pytest.approx(4 * (of_label + of_others), rel=1e-5)


def test_every_exit_learns_and_the_teacher_does_not() -> None:
    logits = tuple(STUDENT.clone().requires_grad_() for _ in range(3))
    teacher = TEACHER.clone().requires_grad_()
    taught = replace(STEP, teacher=Outputs((teacher,), (), ()))
    EmaTeacher()(Outputs(logits, (), ()), taught, nn.Module())["kd"].backward()
    assert all(z.grad is not None for z in logits)
    assert teacher.grad is None


def test_the_decay_is_what_the_network_is_averaged_with() -> None:
    assert EmaTeacher(decay=0.5).needs.average == 0.5
