"""BYOT by hand, and whom it teaches."""

from __future__ import annotations

import math

import pytest
import torch
from steps import classes, step_of
from torch import Tensor, nn

from sdcompress.methods._base import Context
from sdcompress.methods.byot import Byot
from sdcompress.models.outputs import Outputs

EVEN, SURE = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
STEP = step_of([0])
CONTEXT = Context(1, 1, classes(2), (3, 3), ((1, 1, 1), (1, 1, 1)))


def _outputs(logits: tuple[Tensor, ...], features: tuple[Tensor, ...]) -> Outputs:
    return Outputs(logits, features, features)


def test_by_hand() -> None:
    features = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[0.0, 0.0, 5.0]])
    method = Byot(kd_weight=0.25, temperature=2.0, feature_weight=0.6)
    terms = method(_outputs((EVEN, SURE), features), STEP, method.state(CONTEXT))
    assert terms["ce"].item() == pytest.approx(0.75 * math.log(2) - math.log(0.9), rel=1e-5)
    # Halving the logits turns 0.9 : 0.1 into 3 : 1; T^2 = 4.
    assert terms["kd"].item() == pytest.approx(0.25 * 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)), rel=1e-5)
    assert terms["feature"].item() == pytest.approx(0.6 * (1 + 0 + 9) / 3)
    assert terms.keys() == {"ce", "kd", "feature"}


def test_no_gradient_reaches_the_teacher() -> None:
    logits = tuple(torch.randn(4, 2, requires_grad=True) for _ in range(3))
    features = tuple(torch.randn(4, 3, requires_grad=True) for _ in range(3))
    step = step_of([0, 1, 0, 1])
    method = Byot(feature_weight=1.0)
    terms = method(
        _outputs(logits, features), step, method.state(Context(4, 4, classes(2), (3, 3, 3), ((1, 1, 1),) * 3))
    )
    (terms["kd"] + terms["feature"]).backward()
    assert [z.grad is not None for z in logits] == [True, True, False]
    assert [f.grad is not None for f in features] == [True, True, False]


def test_without_the_feature_loss_there_are_no_adapters() -> None:
    assert list(Byot(feature_weight=0.0).state(Context(1, 1, classes(2), (3, 5), ((1, 1, 1),) * 2)).parameters()) == []
    assert isinstance(Byot(feature_weight=0.0).state(CONTEXT), nn.Module)
