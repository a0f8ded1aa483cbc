"""The signals of an exit: by hand, against float64, at the edges."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from signals import signals_of


def test_by_hand() -> None:
    logits = np.log(np.float32([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5], [1 / 3, 1 / 3, 1 / 3]]))
    found = signals_of(logits)
    np.testing.assert_allclose(found["max_prob"], [0.7, 0.5, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(found["second_prob"], [0.2, 0.25, 1 / 3], rtol=1e-6)
    # -(.7 ln .7 + .2 ln .2 + .1 ln .1), -(.5 ln .5 + .5 ln .25), ln 3
    np.testing.assert_allclose(found["entropy"], [0.801819, 1.5 * np.log(2), np.log(3)], rtol=1e-5)
    assert found.decision.tolist() == [0, 2, 0]  # the first of equal ones
    # T = 1/2 squares the probabilities: .49 / .54, .04 / .54
    np.testing.assert_allclose(signals_of(logits, 0.5)["max_prob"][0], 0.49 / 0.54, rtol=1e-6)
    np.testing.assert_allclose(signals_of(logits, 0.5)["second_prob"][0], 0.04 / 0.54, rtol=1e-6)


@settings(max_examples=200, deadline=None)
@given(
    logits=arrays.arrays(np.float32, (4, 7), elements=st.floats(-1e4, 1e4, width=32)),
    temperature=st.floats(0.05, 20.0),
)
def test_against_float64(logits: np.ndarray, temperature: float) -> None:
    scaled = logits.astype(np.float64) / temperature
    p = np.exp(scaled - scaled.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    found = signals_of(logits, temperature)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(p > 0, p * np.log(p), 0).sum(1)
    ordered = np.sort(p, axis=1)
    np.testing.assert_allclose(found["max_prob"], ordered[:, -1], rtol=1e-3)
    np.testing.assert_allclose(found["second_prob"], ordered[:, -2], rtol=1e-2, atol=1e-6)
    np.testing.assert_allclose(found["entropy"], entropy, rtol=1e-2, atol=1e-4)
    assert found.decision.tolist() == logits.argmax(1).tolist()
    assert (found.stacked().dtype, found.decision.dtype) == (np.float32, np.int64)
    assert (found["max_prob"] <= 1).all()


def test_what_is_not_a_number_stays_none_and_the_logits_are_left_alone() -> None:
    logits = np.float32([[np.nan, 0.0, 1.0], [np.inf, 0.0, 1.0], [3.0, 1.0, 2.0]])
    kept = logits.copy()
    with np.errstate(invalid="ignore"):
        found = signals_of(logits)
    for column in found.columns.values():
        assert np.isnan(column).tolist() == [True, True, False]
    np.testing.assert_array_equal(logits, kept)


def test_one_class_and_no_rows() -> None:
    found = signals_of(np.float32([[3.0], [-1.0]]))
    assert found.stacked().tolist() == [[1, 0, 0], [1, 0, 0]]
    assert signals_of(np.empty((0, 5), np.float32)).stacked().shape == (0, 3)
