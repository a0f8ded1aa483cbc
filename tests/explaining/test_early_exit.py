"""Where samples leave, what they lose and what it costs, on four samples and three exits worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sdcompress.evaluation.paired import paired_difference
from sdcompress.evaluation.strata import shares_by_stratum
from sdcompress.explaining.early_exit import (
    exit_shares,
    losses_at,
    oracle_exits,
    overthinking,
)

# no loss anywhere; from the second exit on; nowhere; only at the first
LOSS = np.float32([[0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
LEFT = np.array([0, 2, 0, 1])
REACH = [1.0, 2.0, 4.0]


def test_losses_and_shares() -> None:
    assert losses_at(LEFT, LOSS).tolist() == [0, 0, 1, 1]
    assert exit_shares(LEFT, 3).tolist() == [0.5, 0.25, 0.25]


def test_shares_of_each_stratum() -> None:
    found = shares_by_stratum(LEFT, np.array([0, 1, 1, 0]), exits=3, count=3)
    assert found[:2].tolist() == [[0.5, 0.5, 0], [0.5, 0, 0.5]]
    assert np.isnan(found[2]).all()


def test_the_oracle_leaves_at_the_first_best_exit_and_goes_to_the_end_where_all_is_lost() -> None:
    assert oracle_exits(LOSS).tolist() == [0, 1, 2, 0]
    assert oracle_exits(np.float32([[0.5, 0.75, 1], [0.25, 0.75, 1], [0.25, 0.5, 1]])).tolist() == [1, 2, 2]


def test_overthinking_of_the_whole_network() -> None:
    found = overthinking(np.full(4, 2), LOSS, REACH)
    assert found == (3 / 4, (3 + 2 + 0 + 3) / 4, 1 / 4)


def test_overthinking_under_a_policy() -> None:
    # the second goes on from 2 to 4, the last from 1 to 2 and is spoiled; what is wrong everywhere wastes nothing
    assert overthinking(LEFT, LOSS, REACH) == (2 / 4, (2 + 1) / 4, 1 / 4)


def test_a_difference_with_its_interval() -> None:
    value, low, high = paired_difference(np.float32([0, 0, 1, 1]), np.float32([1, 0, 1, 0]))
    assert value == 0
    assert (low, high) == pytest.approx((-0.653, 0.653), abs=1e-3)  # 1.96 * sqrt(4 / 6) / sqrt(6)


def test_agreeing_everywhere_does_not_make_the_interval_vanish() -> None:
    same = np.zeros(300, np.float32)
    assert paired_difference(same, same) == (0, -0.01, 0.01)
