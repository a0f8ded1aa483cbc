"""Tf-KD's hand-made teacher is label smoothing: the proof that its file speaks of."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from steps import step_of
from torch import nn

from sdcompress.methods.label_smooth import LabelSmoothing
from sdcompress.methods.tf_kd import TfKd
from sdcompress.objectives.batch import Batch


def _batch(classes: int) -> Batch:
    return step_of(torch.arange(classes), count=classes)


@given(
    classes=st.integers(2, 200),
    alpha=st.floats(0, 1),
    correct=st.floats(0.5, 1),
    temperature=st.floats(0.5, 50),
)
def test_its_label_is_a_smoothed_one(classes: int, alpha: float, correct: float, temperature: float) -> None:
    others = (1 - correct) / (classes - 1)
    epsilon = alpha * classes / (classes - 1 + math.exp((correct - others) / temperature))
    logits, batch = torch.zeros(classes, classes), _batch(classes)
    ours = TfKd(kd_weight=alpha, correct=correct, temperature=temperature).label(logits, batch, nn.Module())
    # where the teacher is less sure of the label than 1 / K the smoothing would exceed 1: it never is
    assert epsilon <= 1 + 1e-9
    theirs = LabelSmoothing(epsilon=min(epsilon, 1.0)).label(logits, batch, nn.Module())
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_class_weights_multiply_the_share_of_each_class() -> None:
    """As torch has them: not that of the label, for the whole target."""
    weights = torch.tensor([1.0, 2.0, 4.0])
    batch = step_of([1], count=3, class_weights=weights)
    label = TfKd(kd_weight=0.5, correct=0.5, temperature=0.25).label(torch.zeros(1, 3), batch, nn.Module())
    # (0.25, 0.5, 0.25) / 0.25 softens to (1, e, 1) / (2 + e)
    teacher = torch.tensor([[1.0, math.e, 1.0]]) / (2 + math.e)
    torch.testing.assert_close(label, weights * (0.5 * torch.tensor([[0.0, 1.0, 0.0]]) + 0.5 * teacher))


def test_with_the_published_numbers_it_smooths_by_a_tenth() -> None:
    label = TfKd().label(torch.zeros(100, 100), _batch(100), nn.Module())
    teacher = (label[0] - 0.9 * F.one_hot(torch.tensor(0), 100)) / 0.1
    assert teacher[0].item() == pytest.approx(0.0105, abs=5e-5)
    assert teacher[1:].mean().item() == pytest.approx(0.009995, abs=1e-6)
    assert 1 - label[0, 0].item() + label[0, 1].item() == pytest.approx(0.09995, abs=1e-5)
