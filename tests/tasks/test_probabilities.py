"""Scores worked out by hand, and against the slowest possible way."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scores import ece, nll

from sdcompress.tasks._probabilities import calibration_error, log_softmax, reliability, softmax
from sdcompress.tasks.classification import Classification

THREE = np.log(np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5]]))
LABELS = np.array([0, 1, 0])


def test_by_hand() -> None:
    np.testing.assert_allclose(softmax(THREE + 7), np.exp(THREE))
    assert nll(THREE, LABELS) == pytest.approx(-(math.log(0.5) + math.log(0.8) + math.log(0.25)) / 3)
    # T = 1/2 squares the probabilities: .25/.38, .64/.66, .0625/.375
    assert nll(THREE, LABELS, 0.5) == pytest.approx(-(math.log(25 / 38) + math.log(64 / 66) + math.log(1 / 6)) / 3)


def test_logits_decide_where_probabilities_round_to_equal_ones() -> None:
    task, outputs = Classification(("cat", "dog")), np.float32([[0, 1e-20]])
    prediction = task.prediction(outputs, np.array([0]))
    assert prediction.probabilities.tolist() == [[0.5, 0.5]]
    assert prediction.labels == ("dog",)
    assert prediction.top(1) == ((("dog", 0.5),),)
    assert task.measures(outputs, np.array([1]))["correct"].tolist() == [True]


def test_calibration_error_by_hand() -> None:
    # bins of 1/2: (0, .5] holds .5 (right) and .5 (wrong), (.5, 1] holds .8 (right)
    assert ece(np.exp(THREE), LABELS, bins=2) == pytest.approx((2 / 3) * abs(0.5 - 0.5) + (1 / 3) * abs(0.8 - 1))
    # one bin: mean confidence .6, accuracy 2/3
    assert ece(np.exp(THREE), LABELS, bins=1) == pytest.approx(2 / 3 - 0.6)


def test_perfect_and_hopeless() -> None:
    sure = np.eye(4)
    assert ece(sure, np.arange(4)) == 0
    assert ece(sure, (np.arange(4) + 1) % 4) == 1


def slow_ece(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> float:
    edges = np.linspace(0, 1, bins + 1)
    total = 0.0
    for low, high in itertools.pairwise(edges):
        rows = [row for row, p in enumerate(probabilities) if low < p.max() <= high]
        if rows:
            confidence = sum(probabilities[row].max() for row in rows) / len(rows)
            right = sum(int(probabilities[row].argmax() == labels[row]) for row in rows) / len(rows)
            total += len(rows) / len(labels) * abs(confidence - right)
    return total


@settings(max_examples=100, deadline=None)
@given(
    logits=arrays.arrays(np.float64, (30, 4), elements=st.floats(-20, 20)),
    labels=arrays.arrays(np.int64, 30, elements=st.integers(0, 3)),
    bins=st.integers(1, 20),
)
def test_calibration_error_against_a_loop(logits: np.ndarray, labels: np.ndarray, bins: int) -> None:
    probabilities = softmax(logits)
    assert ece(probabilities, labels, bins) == pytest.approx(slow_ece(probabilities, labels, bins), abs=1e-12)


def test_confidences_on_the_edges_belong_to_the_bin_below() -> None:
    fifths = np.array([[0.8, 0.2], [0.6, 0.4], [1.0, 0.0]])
    labels = np.array([0, 1, 0])
    assert ece(fifths, labels, bins=5) == pytest.approx((0.2 + 0.6 + 0.0) / 3)
    assert ece(fifths, labels, bins=5) == pytest.approx(slow_ece(fifths, labels, 5))


def test_large_logits_stay_finite() -> None:
    wild = np.float32([[1e4, -1e4, 0.0]])
    assert np.isfinite(log_softmax(wild)).all()
    assert nll(wild, np.array([1])) == pytest.approx(2e4)


def test_reliability_holds_the_bins_that_have_samples() -> None:
    found = reliability(np.array([0.5, 0.3, 0.9, 0.8]), np.array([True, False, True, False]), bins=2)
    # (0, 0.5] takes its upper end along
    assert found == ((0, 0.5, 2, pytest.approx(0.4), 0.5), (0.5, 1, 2, pytest.approx(0.85), 0.5))


def test_reliability_and_calibration_error_are_of_the_same_bins() -> None:
    rng = np.random.default_rng(1)
    confidences = rng.random(400)
    right = rng.random(400) < confidences**2
    bins = reliability(confidences, right)
    assert sum(found.samples for found in bins) == 400
    gaps = sum(found.samples * abs(found.confidence - found.metric) for found in bins) / 400
    assert calibration_error(confidences, right) == pytest.approx(gaps)
