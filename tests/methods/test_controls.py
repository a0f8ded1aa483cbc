"""The controls, by hand: two exits that give the label 0 a chance of 1/2 and 0.9."""

from __future__ import annotations

import math

import pytest
import torch
from steps import step_of
from torch import nn

from sdcompress.methods.baseline import Baseline
from sdcompress.methods.deep_supervision import DeepSupervision
from sdcompress.methods.label_smooth import LabelSmoothing
from sdcompress.models.outputs import Outputs

EVEN, SURE = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
STEP = step_of([0])
FEATURES = torch.zeros(1, 1)


def _outputs(*logits: torch.Tensor) -> Outputs:
    return Outputs(logits, (FEATURES,) * len(logits), (FEATURES,) * len(logits))


def test_baseline() -> None:
    assert Baseline()(_outputs(SURE), STEP, nn.Module())["ce"].item() == pytest.approx(-math.log(0.9), rel=1e-5)


def test_label_smoothing() -> None:
    # 0.1 of the label is spread over both classes: 0.95 and 0.05
    expected = -0.95 * math.log(0.9) - 0.05 * math.log(0.1)
    assert LabelSmoothing()(_outputs(SURE), STEP, nn.Module())["ce"].item() == pytest.approx(expected, rel=1e-5)


def test_label_smoothing_replaces_the_recipes() -> None:
    recipes = step_of([0], smoothing=0.5)
    found, expected = (LabelSmoothing()(_outputs(SURE), step, nn.Module())["ce"] for step in (recipes, STEP))
    assert torch.equal(found, expected)


def test_deep_supervision() -> None:
    expected = math.log(2) - math.log(0.9)
    found = DeepSupervision()(_outputs(EVEN, SURE), STEP, nn.Module())["ce"]
    assert found.item() == pytest.approx(expected, rel=1e-5)
