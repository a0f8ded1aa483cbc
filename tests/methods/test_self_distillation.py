"""Self-Distillation by hand, and whom it teaches."""

from __future__ import annotations

import math

import pytest
import torch
from steps import classes, step_of

from sdcompress.methods._base import Context
from sdcompress.methods.self_distillation import SelfDistillation
from sdcompress.models.outputs import Outputs

STEP = step_of([0])
CONTEXT = Context(1, 1, classes(2), (2, 2), ((1, 1, 1), (1, 1, 1)))


def test_by_hand() -> None:
    logits = torch.tensor([[0.8, 0.2]]).log(), torch.tensor([[0.9, 0.1]]).log()
    features = torch.tensor([[-1.0, 0.0]]), torch.tensor([[-3.0, 4.0]])
    method = SelfDistillation(kd_weight=0.5, temperature=2.0, feature_weight=0.1)
    terms = method(Outputs(logits, features, features), STEP, method.state(CONTEXT))
    assert terms["ce"].item() == pytest.approx(-0.5 * math.log(0.8) - math.log(0.9), rel=1e-5)
    # Halving the logits turns 0.9 : 0.1 into 3 : 1 and 0.8 : 0.2 into 2 : 1; T^2 = 4.
    assert terms["kd"].item() == pytest.approx(0.5 * 4 * -(0.75 * math.log(2 / 3) + 0.25 * math.log(1 / 3)), rel=1e-5)
    assert terms["feature"].item() == pytest.approx(0.1 * (4 + 16) / 2)  # nothing is masked
    assert SelfDistillation().feature_weight == 0.0


def test_no_gradient_reaches_the_teacher() -> None:
    logits = tuple(torch.randn(1, 2, requires_grad=True) for _ in range(2))
    features = tuple(torch.randn(1, 2, requires_grad=True) for _ in range(2))
    method = SelfDistillation(feature_weight=1.0)
    terms = method(Outputs(logits, features, features), STEP, method.state(CONTEXT))
    (terms["kd"] + terms["feature"]).backward()
    assert [t.grad is not None for t in (*logits, *features)] == [True, False, True, False]
