"""The parts are disjoint, the same everywhere, and drawn by nothing that a user could turn."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sdcompress.certification.calibration_split import calibration_count_for, draw_split, seed_of, tuning_count_for

SEEDS = st.integers(0, 2**256 - 1).map(lambda number: f"{number:064x}")


@given(count=st.integers(4, 500), seed=SEEDS)
def test_two_parts_hold_every_sample_once(count: int, seed: str) -> None:
    parts = draw_split(count, seed)
    assert sorted([*parts.tuning, *parts.certify]) == list(range(count))
    assert len(parts.tuning) == count // 6
    again = draw_split(count, seed)
    np.testing.assert_array_equal(parts.certify, again.certify)


def test_the_draw_is_the_same_on_every_machine() -> None:
    parts = draw_split(12, seed_of("a" * 64, "b" * 64))
    assert seed_of("a" * 64, "b" * 64) == "10b88f6109ff758ad4219e1c028f5e262ac4c2fe9628576840ab1ba35cd998f0"
    assert (parts.tuning.tolist(), parts.certify.tolist()) == ([2, 9], [0, 6, 7, 11, 10, 8, 4, 1, 5, 3])


def test_other_data_or_other_graphs_draw_other_parts() -> None:
    seeds = {seed_of(*pair) for pair in (("a" * 64, "b" * 64), ("b" * 64, "a" * 64), ("a" * 64, "c" * 64))}
    orders = {tuple(draw_split(100, seed).certify) for seed in seeds}
    assert len(seeds) == len(orders) == 3


def test_each_position_is_as_likely_in_either_part() -> None:
    counts = np.zeros(40)
    for number in range(2000):
        counts[draw_split(40, f"{number:064x}").tuning] += 1
    assert abs(counts - 300).max() < 5 * (2000 * 0.15 * 0.85) ** 0.5  # 6 of 40


@given(tuning=st.integers(1, 2000))
def test_in_tuning_is_the_same_share_of_the_other_part(tuning: int) -> None:
    parts = draw_split(6 * tuning, "0" * 64)
    assert tuning_count_for(len(parts.certify)) == len(parts.tuning)
    assert tuning_count_for(len(parts.certify) + 1) == len(parts.tuning) + 1


@given(certify=st.integers(1, 10_000))
def test_samples_for_is_the_smallest_number(certify: int) -> None:
    count = calibration_count_for(certify)
    assert len(draw_split(count, "0" * 64).certify) >= certify
    assert len(draw_split(count - 1, "0" * 64).certify) < certify or count == 1
