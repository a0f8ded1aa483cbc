"""Which units go at a ratio, by hand, and what holds for all scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcompress.errors import UsageError
from sdcompress.pruning.search import smallest_ratio
from sdcompress.pruning.selection import Candidate, removed_units

FIRST = Candidate(0, np.array([0.1, 0.9, 0.2, 0.8]), 1)
SECOND = Candidate(1, np.array([3.0, 0.3, 2.0, 1.0]), 1)


def test_global_ranking_compares_layers_and_layer_ranking_does_not() -> None:
    # of all eight scores the three smallest are 0.1 and 0.2 of the first layer, 0.3 of the second
    assert removed_units([FIRST, SECOND], 3 / 8, "global", 1) == {0: (0, 2), 1: (1,)}
    assert removed_units([FIRST, SECOND], 1 / 2, "layer", 1) == {0: (0, 2), 1: (1, 3)}


def test_kept_channels_are_the_nearest_multiple_and_heads_are_not_rounded() -> None:
    of_20 = Candidate(0, np.arange(20.0), 1)
    assert len(removed_units([of_20], 0.35, "layer", 4)[0]) == 8  # 13 would be left, 12 is nearer than 16
    assert removed_units([of_20], 0.05, "layer", 8) == {0: (0, 1, 2, 3)}  # 19 are nearest to 16, of which all 20 are no
    heads = Candidate(0, np.array([2.0, 1.0, 3.0]), 64)
    assert removed_units([heads], 1 / 3, "layer", 8) == {0: (1,)}


def test_no_layer_is_emptied() -> None:
    assert removed_units([FIRST, SECOND], 1.0, "global", 1) == {0: (0, 2, 3), 1: (1, 2, 3)}
    narrow = Candidate(0, np.arange(6.0), 1)
    assert removed_units([narrow], 1.0, "layer", 8) == {0: (0, 1, 2, 3)}  # a multiple of 2 is left


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.floats(0, 10), min_size=2, max_size=40), min_size=1, max_size=4),
    st.floats(0, 1),
    st.sampled_from(["global", "layer"]),
    st.sampled_from([1, 4, 8]),
)
def test_what_is_removed_is_least_and_leaves_a_multiple(
    scores: list[list[float]], ratio: float, ranking: str, round_to: int
) -> None:
    groups = [Candidate(at, np.array(each), 1) for at, each in enumerate(scores)]
    removed = removed_units(groups, ratio, ranking, round_to)  # type: ignore[arg-type]
    for at, units in removed.items():
        kept = [each for unit, each in enumerate(scores[at]) if unit not in units]
        assert len(kept) >= 1
        assert len(kept) % round_to == 0 or len(scores[at]) < 2 * round_to
        assert max(scores[at][unit] for unit in units) <= min(kept)


def test_the_smallest_ratio_is_found_and_nothing_is_measured_twice() -> None:
    measured: list[int] = []

    def cost(removed: int) -> float:
        measured.append(removed)
        return 100 - removed

    found = smallest_ratio(lambda ratio: int(10 * ratio), cost, 96.5, steps=8, shown=str)
    assert (found.choice, found.cost) == (4, 96)
    assert 0.4 <= found.ratio < 0.41
    assert len(measured) == len({*measured})


def test_a_target_that_cannot_be_met_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="cannot be pruned below 90"):
        smallest_ratio(lambda ratio: int(10 * ratio), lambda removed: 100.0 - removed, 50, steps=3, shown=str)
