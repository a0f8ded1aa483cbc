"""PS-KD by hand over two epochs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from steps import classes, step_of

from sdcompress.methods._base import Context
from sdcompress.methods.ps_kd import PsKd
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch


def _outputs(*probabilities: float) -> Outputs:
    z = torch.tensor([probabilities]).log().requires_grad_()
    return Outputs((z,), (z,), (z,))


def _step(index: int, progress: float) -> Batch:
    return step_of([0], torch.tensor([index]), progress=progress)


def test_by_hand() -> None:
    method = PsKd(alpha=0.8)
    state = method.state(Context(2, 2, classes(2), (2,), ((1, 1, 1),)))
    first = method(_outputs(0.6, 0.4), _step(1, 0.5), state)["ce"]
    assert first.item() == pytest.approx(-math.log(0.6), rel=1e-5)  # never seen: the label itself
    method(_outputs(0.2, 0.8), _step(0, 0.5), state)
    # Sample 1 was 0.6 : 0.4; halfway a is 0.4: target 0.6 + 0.4 * 0.6 = 0.84 and 0.16.
    outputs = _outputs(0.9, 0.1)
    second = method(outputs, _step(1, 0.5), state)["ce"]
    assert second.item() == pytest.approx(-0.84 * math.log(0.9) - 0.16 * math.log(0.1), rel=1e-5)
    second.backward()
    gradient = outputs.logits[0].grad
    assert gradient is not None
    torch.testing.assert_close(gradient, torch.tensor([[0.9 - 0.84, 0.1 - 0.16]]))  # p - target, not through the target
    # The last step replaced it by 0.9 : 0.1; at three quarters a is 0.6: target 0.4 + 0.54 and 0.06.
    third = method(_outputs(0.5, 0.5), _step(1, 0.75), state)["ce"]
    assert third.item() == pytest.approx(math.log(2), rel=1e-5)


def test_class_weights_multiply_each_class_of_the_mixed_label_once() -> None:
    method, weights = PsKd(alpha=0.8), torch.tensor([2.0, 3.0])
    state = method.state(Context(1, 1, classes(2), (2,), ((1, 1, 1),)))
    step = replace(_step(0, 0.5), class_weights=weights)
    first = method(_outputs(0.6, 0.4), step, state)["ce"]
    assert first.item() == pytest.approx(-2 * math.log(0.6), rel=1e-5)
    # the label as above, 0.84 and 0.16: what is remembered has no weights
    second = method(_outputs(0.9, 0.1), step, state)["ce"]
    assert second.item() == pytest.approx(-2 * 0.84 * math.log(0.9) - 3 * 0.16 * math.log(0.1), rel=1e-5)


def test_it_takes_neither_exits_nor_mixed_images() -> None:
    assert not PsKd.default_needs.exits
    assert not PsKd.default_needs.mixing
