"""Exit-Ensemble Distillation by hand, and whom it teaches."""

from __future__ import annotations

import math

import pytest
import torch
from steps import classes, step_of

from sdcompress.methods._base import Context
from sdcompress.methods.eed import Eed
from sdcompress.models.outputs import Outputs

STEP = step_of([0])


def test_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])  # mean 1, 0
    features = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]])  # mean 1, 0
    method = Eed(logit_weight=3.0, feature_weight=0.5)
    terms = method(
        Outputs(logits, features, features), STEP, method.state(Context(1, 1, classes(2), (2, 2), ((1, 1, 1),) * 2))
    )
    assert terms["ce"].item() == pytest.approx(math.log(2) + math.log(1 + math.exp(-2)), rel=1e-5)
    assert terms["kd"].item() == pytest.approx(3 * (0.5 + 0.5))  # each exit is 1 off in one of two logits
    assert terms["feature"].item() == pytest.approx(0.5 * (0.5 + 0.5))


def test_every_exit_is_taught_and_the_mean_is_not() -> None:
    logits = tuple(torch.randn(4, 5, requires_grad=True) for _ in range(3))
    features = tuple(torch.rand(4, 6, requires_grad=True) for _ in range(3))  # positive: nothing is masked
    step = step_of([0, 1, 2, 3], count=5)
    method = Eed()
    terms = method(
        Outputs(logits, features, features), step, method.state(Context(4, 4, classes(5), (6,) * 3, ((1, 1, 1),) * 3))
    )
    (terms["kd"] + terms["feature"]).backward()
    for exits in (logits, features):
        mean = torch.stack(exits).mean(0)
        for tensor in exits:
            # 2 (z - mean) / (B K), without the part that would flow through the mean
            assert tensor.grad is not None
            torch.testing.assert_close(tensor.grad, (2 * (tensor - mean) / tensor.numel()).detach())
