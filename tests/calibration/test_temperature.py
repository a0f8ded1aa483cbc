"""The temperature of an exit: a closed form, a brute-force search, and when there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scores import nll

from sdcompress.calibration.policy_fitting import fit_temperature
from sdcompress.tasks.classification import Classification

TASK = Classification(("a", "b"))


def test_two_classes_by_hand() -> None:
    # every row says class 0 with a gap of 3; right in 3 of 4: sigmoid(3 / T) = 3/4, so T = 3 / ln 3
    logits = np.tile(np.float32([3.0, 0.0]), (4, 1))
    assert fit_temperature(TASK, logits, np.array([0, 0, 0, 1])) == pytest.approx(3 / math.log(3), rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.3, 6.0), classes=st.integers(2, 12))
def test_no_temperature_of_a_fine_grid_is_better(seed: int, scale: float, classes: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(300, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([rng.choice(classes, p=row) for row in probabilities])
    scaled = (logits * scale).astype(np.float32)
    grid = np.exp(np.linspace(math.log(0.2), math.log(9), 300))
    best = min(nll(scaled, labels, float(temperature)) for temperature in grid)
    assert nll(scaled, labels, fit_temperature(TASK, scaled, labels)) <= best + 1e-9


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 1]], ids=["no mistake", "all wrong", "guess"])
def test_without_a_minimum_nothing_is_scaled(labels: list[int]) -> None:
    logits = np.tile(np.float32([3.0, 0.0]), (4, 1))
    assert fit_temperature(TASK, logits, np.array(labels)) == 1.0


def test_logits_far_apart_do_not_overflow() -> None:
    logits = np.float32([[5000.0, 0.0], [0.0, 5000.0], [5000.0, 0.0], [5.0, 0.0]])
    temperature = fit_temperature(TASK, logits, np.array([0, 1, 0, 1]))
    assert math.isfinite(nll(logits, np.array([0, 1, 0, 1]), temperature))
    assert nll(logits, np.array([0, 1, 0, 1]), temperature) <= nll(logits, np.array([0, 1, 0, 1]))
