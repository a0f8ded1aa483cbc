"""Multi-exit distillation by hand: the temperature, and whom it teaches."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from steps import classes, step_of

from sdcompress.errors import RecipeError
from sdcompress.methods._base import Context
from sdcompress.methods.med import Med
from sdcompress.models.outputs import Outputs

EVEN, SURE = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
STEP = step_of([0])
CONTEXT = Context(1, 1, classes(2), (2, 2), ((1, 1, 1),) * 2)


def test_by_hand_and_the_temperature_rises_while_the_teacher_is_sure() -> None:
    method = Med(kd_weight=0.25, rise=2.0, confidence=0.8)
    state, outputs = method.state(CONTEXT), Outputs((EVEN, SURE), (EVEN, SURE), (EVEN, SURE))
    first = method(outputs, STEP, state)
    assert first["ce"].item() == pytest.approx(0.75 * math.log(2) - math.log(0.9), rel=1e-5)
    kl_at_1 = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert first["kd"].item() == pytest.approx(0.25 * kl_at_1, rel=1e-5)
    # 0.9 is above 0.8: T is 2 now, which turns 0.9 : 0.1 into 3 : 1, and 0.75 is not above 0.8
    for step in (1, 1, 2):  # the parts of a step share its temperature
        later = method(outputs, replace(STEP, step=step), state)
        kl_at_2 = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
        assert later["kd"].item() == pytest.approx(0.25 * 4 * kl_at_2, rel=1e-5)


def test_a_teacher_that_is_always_sure_is_refused() -> None:
    with pytest.raises(RecipeError, match="rise for ever") as caught:
        Med().state(CONTEXT)  # of two classes, one always has at least 1/2
    assert "method.confidence=0.75" in caught.value.next_step


def test_no_gradient_reaches_the_teacher() -> None:
    logits = tuple(torch.randn(4, 2, requires_grad=True) for _ in range(3))
    step = step_of([0, 1, 0, 1])
    method = Med(confidence=0.75)
    method(Outputs(logits, logits, logits), step, method.state(CONTEXT))["kd"].backward()
    assert [z.grad is not None for z in logits] == [True, True, False]
