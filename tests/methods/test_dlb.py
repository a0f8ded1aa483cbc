"""DLB by hand, and whom it teaches."""

from __future__ import annotations

import math

import pytest
import torch
from steps import classes, samples_of, step_of

from sdcompress.methods._base import Context
from sdcompress.methods.dlb import Dlb
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch, SecondView

EVEN, SURE = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
CONTEXT = Context(4, 1, classes(2), (2,), ((1, 1, 1),))


def _step(now: torch.Tensor, again: torch.Tensor, index: int, before: int) -> tuple[Outputs, Batch]:
    outputs, further = (Outputs((z,), (z,), (z,)) for z in (now, again))
    second = SecondView(further, samples_of([1], torch.tensor([before])))
    return outputs, step_of([0], torch.tensor([index]), second=second)


def test_by_hand() -> None:
    method = Dlb(kd_weight=0.5, temperature=2.0)
    state = method.state(CONTEXT)
    # the first batch says SURE of sample 3; nothing was said of sample 0 before
    first = method(*_step(SURE, EVEN, index=3, before=0), state)
    assert first["kd"].item() == 0
    # sample 3 again, now EVEN: halving the logits turns 0.9 : 0.1 into 3 : 1; T^2 = 4
    terms = method(*_step(EVEN, EVEN, index=2, before=3), state)
    assert terms["ce"].item() == pytest.approx(math.log(2), rel=1e-5)
    assert terms["kd"].item() == pytest.approx(0.5 * 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)), rel=1e-5)
    assert terms.keys() == {"ce", "kd"}


def test_it_learns_from_both_halves_labels() -> None:
    terms = Dlb()(*_step(SURE, SURE, index=0, before=1), Dlb().state(CONTEXT))
    assert terms["ce"].item() == pytest.approx((-math.log(0.9) - math.log(0.1)) / 2, rel=1e-5)


def test_no_gradient_reaches_the_outputs_of_the_step_before_or_the_new_half() -> None:
    method = Dlb()
    state = method.state(CONTEXT)
    past, now, again = (z.clone().requires_grad_() for z in (SURE, SURE, EVEN))
    method(*_step(past, EVEN, index=3, before=0), state)
    method(*_step(now, again, index=2, before=3), state)["kd"].backward()
    assert [z.grad is not None for z in (past, now, again)] == [False, False, True]
