"""Divergences, against values worked out by hand and scipy's entropy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from steps import classes

from sdcompress.objectives.divergences import dkd, soft_cross_entropy
from sdcompress.tasks.regression import Regression

TASK = classes(2)  # its divergence and cross-entropy do not ask how many classes there are
kl = TASK.divergence
EVEN = torch.tensor([[0.5, 0.5]]).log()
SURE = torch.tensor([[0.9, 0.1]]).log()


def test_kl_by_hand() -> None:
    # T 1: 0.9 ln(0.9 / 0.5) + 0.1 ln(0.1 / 0.5)
    assert kl(EVEN, SURE, 1.0).item() == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2), rel=1e-5)
    # T 2 takes square roots: 0.9 : 0.1 becomes 3 : 1
    assert kl(EVEN, SURE, 2.0).item() == pytest.approx(4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)), rel=1e-5)


def test_kl_is_a_mean_over_the_batch() -> None:
    students, teachers = torch.cat([EVEN, SURE]), torch.cat([SURE, SURE])
    assert kl(students, teachers, 1.0).item() == pytest.approx(kl(EVEN, SURE, 1.0).item() / 2)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.5, 20), st.integers(2, 30))
def test_kl_agrees_with_scipy(seed: int, temperature: float, classes: int) -> None:
    student, teacher = np.random.default_rng(seed).normal(scale=3, size=(2, 4, classes))
    p, q = scipy.special.softmax(teacher / temperature, 1), scipy.special.softmax(student / temperature, 1)
    expected = temperature**2 * scipy.stats.entropy(p, q, axis=1).mean()
    ours = kl(torch.tensor(student), torch.tensor(teacher), temperature).item()
    assert ours == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_kl_of_equals_is_nothing(temperature: float) -> None:
    logits = torch.randn(6, 5, requires_grad=True)
    loss = kl(logits, logits.detach().clone(), temperature)
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6


def test_a_hot_kl_is_half_the_squared_difference_of_centred_logits() -> None:
    student, teacher = torch.randn(2, 7, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    difference = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    assert kl(student, teacher, 1e4).item() == pytest.approx(difference.square().mean().item() / 2, rel=1e-3)


def test_soft_cross_entropy_by_hand() -> None:
    # Against an even student it is T^2 ln 2, whatever the teacher.
    assert soft_cross_entropy(EVEN, SURE, 2.0, TASK).item() == pytest.approx(4 * math.log(2), rel=1e-5)


def test_soft_cross_entropy_has_the_gradient_of_kl_and_the_teachers_entropy_more() -> None:
    student = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 4, dtype=torch.float64)
    soft, divergence = soft_cross_entropy(student, teacher, 3.0, TASK), kl(student, teacher, 3.0)
    entropy = scipy.stats.entropy(scipy.special.softmax(teacher.numpy() / 3, 1), axis=1).mean()
    assert (soft - divergence).item() == pytest.approx(9 * entropy)
    torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in (soft, divergence)))


def test_outputs_that_are_no_logits_are_not_softened() -> None:
    student, teacher = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [4.0]])
    # differences of 1 and 2, and not 9 times a third of them
    assert soft_cross_entropy(student, teacher, 3.0, Regression(("height",), "mae")).item() == 1.5
    assert Regression(("height",), "mse").divergence(student, teacher, 3.0).item() == 2.5


def test_decoupled_distillation_by_hand() -> None:
    # T 2 halves the logits: 0.5, 0.25, 0.25 against 0.8, 0.15, 0.05, of which the first is the label's
    student, teacher = (2 * torch.tensor([p]).log() for p in ((0.5, 0.25, 0.25), (0.8, 0.15, 0.05)))
    of_label = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    of_others = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    loss = dkd(student, teacher, torch.tensor([0]), 2.0, target=2.0, other=3.0)
    assert loss.item() == pytest.approx(4 * (2 * of_label + 3 * of_others), rel=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.5, 20), st.integers(2, 12))
def test_decoupled_distillation_takes_kl_apart(seed: int, temperature: float, classes: int) -> None:
    """With the other weight at each sample's 1 - p(y) it is KL: equation 5 of its paper."""
    rng = np.random.default_rng(seed)
    student, teacher = map(torch.tensor, rng.normal(scale=3, size=(2, 4, classes)))
    labels = torch.tensor(rng.integers(0, classes, 4))
    others = 1 - (teacher / temperature).softmax(1)[torch.arange(4), labels]
    apart = [
        dkd(z, t, y, temperature, target=1.0, other=other.item()).item()
        for z, t, y, other in zip(student.split(1), teacher.split(1), labels.split(1), others, strict=True)
    ]
    assert np.mean(apart) == pytest.approx(kl(student, teacher, temperature).item(), rel=1e-6, abs=1e-9)
    whole = dkd(student, teacher, labels, temperature, target=1.0, other=0.5).item()
    one_by_one = [
        dkd(*rows, temperature, target=1.0, other=0.5).item()
        for rows in zip(student.split(1), teacher.split(1), labels.split(1), strict=True)
    ]
    assert whole == pytest.approx(np.mean(one_by_one), rel=1e-9)
