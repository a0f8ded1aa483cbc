from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sdcompress.data.split import hold_out, stratified_order

labels_of_any_kind = hnp.arrays(np.int64, st.integers(1, 60), elements=st.integers(0, 4))


@given(labels_of_any_kind, st.integers(0, 2**32))
def test_the_order_is_a_permutation(labels: np.ndarray, seed: int) -> None:
    assert sorted(stratified_order(labels, seed=(seed,))) == list(range(len(labels)))


@given(labels_of_any_kind, st.integers(0, 2**32), st.data())
def test_every_beginning_has_the_proportions_of_the_whole(labels: np.ndarray, seed: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(labels)))
    chosen = labels[stratified_order(labels, seed=(seed,))[:count]]
    for label in np.unique(labels):
        expected = count * np.mean(labels == label)
        # at a common share t every class has n t rounded, off by 1/2 at most; so has their sum, class by class
        assert abs(np.sum(chosen == label) - expected) <= (len(np.unique(labels)) + 1) / 2


@pytest.mark.parametrize(("count", "each"), [(10, 1), (20, 2), (50, 5)])
def test_equal_classes_give_equal_counts(count: int, each: int) -> None:
    labels = np.repeat(np.arange(10), 7)
    _, held = hold_out(stratified_order(labels, seed=(3, 1)), count)
    assert np.bincount(labels[held]).tolist() == [each] * 10


@given(labels_of_any_kind, st.integers(0, 80))
def test_parts_are_disjoint_and_complete(labels: np.ndarray, count: int) -> None:
    stay, held = hold_out(stratified_order(labels, seed=(1,)), count)
    assert len(held) == min(count, len(labels))
    assert sorted([*stay, *held]) == list(range(len(labels)))
    assert (np.diff(stay) > 0).all()
    assert (np.diff(held) > 0).all()


def test_the_order_is_this_one_on_every_machine() -> None:
    """PCG64's raw output for (0, 1) begins e3c5.., 8ea0.., cd08.., f4de.., 0f01.., 3c84.., c9ae.., 0014..

    By it the first class stands in the order 1 2 0 3, the second in 7 4 5 6; they take turns, the smaller key first.
    """
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert stratified_order(labels, seed=(0, 1)).tolist() == [7, 1, 4, 2, 5, 0, 6, 3]


def test_another_seed_gives_another_order() -> None:
    labels = np.zeros(50, np.int64)
    assert not np.array_equal(stratified_order(labels, seed=(0, 1)), stratified_order(labels, seed=(0, 2)))


def test_the_choice_is_random_within_a_class() -> None:
    """Each of 20 images is held out about as often as any other: 5 of 20, 2,000 times."""
    labels = np.zeros(20, np.int64)
    times = np.bincount(
        np.concatenate([hold_out(stratified_order(labels, seed=(seed,)), 5)[1] for seed in range(2000)]), minlength=20
    )
    # binomial with mean 500 and standard deviation 19.4: five of those
    assert np.abs(times - 500).max() < 97
