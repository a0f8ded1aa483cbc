"""When a row leaves: worked out by hand, against a long way in float64, and at the edges."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from signals import signals_of

from sdcompress.policies import exit_index_of, gates, scores
from sdcompress.policies._base import ExitPolicy, Float, Signals
from sdcompress.policies.max_prob import MaxProb

Leaves = Callable[[np.ndarray], np.ndarray]


def gate(threshold: float, temperature: float = 1.0) -> Leaves:
    (found,) = gates(MaxProb(), (threshold,))
    return lambda logits: found([signals_of(logits, temperature)])


def max_probability(logits: np.ndarray, temperature: float) -> np.ndarray:
    return signals_of(logits, temperature)["max_prob"]


def test_by_hand() -> None:
    logits = np.log(np.float32([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]))
    np.testing.assert_allclose(max_probability(logits, 1.0), [0.7, 0.5], rtol=1e-6)
    # T = 1/2 squares the probabilities: .49 / (.49 + .04 + .01), .25 / (.25 + 2 * .0625)
    np.testing.assert_allclose(max_probability(logits, 0.5), [0.49 / 0.54, 0.25 / 0.375], rtol=1e-6)
    assert gate(0.6)(logits).tolist() == [True, False]
    assert gate(0.6, temperature=0.5)(logits).tolist() == [True, True]


def test_the_first_exit_whose_score_reaches_its_threshold_counts() -> None:
    # reached at the first, only at the second, at both, at none, where a score equals its threshold, where one is NaN
    scores_ = np.float32([[0.9, 0.1, 0.8, 0.1, 0.5, math.nan], [0.1, 0.9, 0.9, 0.2, 0.0, 0.9]])
    assert exit_index_of(scores_, (0.5, 0.7)).tolist() == [0, 1, 0, 2, 0, 1]
    assert exit_index_of(scores_, (2.0, 0.7)).tolist() == [2, 1, 1, 2, 2, 1]
    assert exit_index_of(np.empty((0, 2), np.float32), ()).tolist() == [0, 0]  # the only exit


@settings(max_examples=200, deadline=None)
@given(
    logits=arrays.arrays(np.float32, (4, 7), elements=st.floats(-1e4, 1e4, width=32)),
    temperature=st.floats(0.05, 20.0),
)
def test_against_float64_and_never_outside_its_range(logits: np.ndarray, temperature: float) -> None:
    found = max_probability(logits, temperature)
    shifted = (logits.astype(np.float64) - logits.max(1, keepdims=True)) / temperature
    np.testing.assert_allclose(found, 1 / np.exp(shifted).sum(1), rtol=2e-5)
    assert found.dtype == np.float32
    assert (found <= 1).all()
    assert (found >= np.float32(1 / 7) * np.float32(1 - 1e-6)).all()


@settings(max_examples=100, deadline=None)
@given(
    logits=arrays.arrays(np.float32, (6, 5), elements=st.floats(-30, 30, width=32)), temperature=st.floats(0.05, 20.0)
)
def test_a_row_leaves_at_its_own_confidence_as_a_threshold(logits: np.ndarray, temperature: float) -> None:
    confidences = max_probability(logits, temperature)
    for row, confidence in enumerate(confidences):
        leaves = gate(float(confidence), temperature)(logits)
        assert leaves[row]  # at least, not more than
        assert leaves.tolist() == (confidences >= confidence).tolist()  # equal ones leave together


class InFloat64(ExitPolicy):
    """A score that a number of numpy makes float64, as ``np.log(K)`` does."""

    needs: ClassVar[tuple[str, ...]] = ("entropy",)

    def score(self, exit_index: int, signals: Sequence[Signals]) -> Float:
        del exit_index
        score: Float = 1 - signals[-1]["entropy"] / np.log(3)
        return score


def test_a_score_in_float64_leaves_as_in_the_scores_of_the_calibration() -> None:
    # entropy of 21 exp(-21) = 1.6e-8: the score is 1 - 1.4e-8, which float32 rounds to 1
    certain = [signals_of(np.float32([[21.0, 0.0, -90.0]]))] * 2
    policy = InFloat64()
    assert policy.score(0, certain[:1])[0] < 1
    known = scores(policy, certain)
    assert known.tolist() == [[1.0]]
    assert exit_index_of(known, (1.0,)).tolist() == [0]
    (leaves,) = gates(policy, (1.0,))
    assert leaves(certain[:1]).tolist() == [True]


@pytest.mark.parametrize("never", [1 + 1e-9, 1.5, math.inf])
def test_a_threshold_above_one_never_fires(never: float) -> None:
    certain = np.float32([[100.0, 0.0], [0.0, 0.0]])
    assert max_probability(certain, 1.0)[0] == 1
    assert gate(never)(certain).tolist() == [False, False]
    assert exit_index_of(np.float32([[1.0, 0.5]]), (never,)).tolist() == [1, 1]  # nor where a certificate counts exits
    assert gate(1.0)(certain).tolist() == [True, False]
    assert gate(0.0)(certain).tolist() == [True, True]


def test_what_is_not_a_number_never_leaves() -> None:
    broken = np.float32([[np.nan, 0.0], [np.inf, 0.0], [1.0, 0.0]])
    with np.errstate(invalid="ignore"):
        assert gate(0.0)(broken).tolist() == [False, False, True]


def test_the_logits_are_left_alone() -> None:
    logits = np.float32([[3.0, 1.0]])
    gate(0.5, temperature=2.0)(logits)
    assert logits.tolist() == [[3.0, 1.0]]
