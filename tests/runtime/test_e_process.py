"""E-processes against values worked out by hand, and their bound on false alarms by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sdcompress.runtime.e_process import EProcess

FOR_EVER = 1e300  # what waits joins no bet


def test_the_wealth_after_two_values_by_hand() -> None:
    process = EProcess(lifetime=FOR_EVER)
    assert process.wealth == pytest.approx(1.0)
    # odds of 1.5, 2 and 4 times those of 1/2: a 1 multiplies the stakes of 1/6 by 6/5, 4/3 and 8/5
    process.value(1.0, 0.5)
    assert process.wealth == pytest.approx(1 / 2 + (6 / 5 + 4 / 3 + 8 / 5) / 6)
    # and a 0 by 4/5, 2/3 and 2/5
    process.value(0.0, 0.5)
    assert process.wealth == pytest.approx(1 / 2 + (24 / 25 + 8 / 9 + 16 / 25) / 6)
    assert process.largest == pytest.approx(1 / 2 + (6 / 5 + 4 / 3 + 8 / 5) / 6)


def test_a_loss_between_0_and_1_lies_between_and_one_at_the_bound_changes_nothing() -> None:
    process = EProcess(lifetime=FOR_EVER)
    process.value(0.2, 0.2)
    assert process.wealth == pytest.approx(1.0)
    process.value(0.5, 0.2)  # (1 + (w - 1) / 2) / (1 + (w - 1) / 5)
    assert process.wealth == pytest.approx(1 / 2 + (1.25 / 1.1 + 1.5 / 1.2 + 2.5 / 1.6) / 6)


def test_what_waits_joins_the_bets_with_time() -> None:
    process = EProcess(lifetime=10)
    process.value(0.0, 0.5)
    assert process.wealth == pytest.approx(1 / 2 + (4 / 5 + 2 / 3 + 2 / 5) / 6)  # a tenth of 1/2 has joined since
    process.value(1.0, 0.5)
    stakes = [1 / 6 * 4 / 5 + 1 / 60, 1 / 6 * 2 / 3 + 1 / 60, 1 / 6 * 2 / 5 + 1 / 60]
    assert process.wealth == pytest.approx(0.45 + np.dot(stakes, [6 / 5, 4 / 3, 8 / 5]))


def test_a_block_is_its_values_one_by_one() -> None:
    one, block = EProcess(lifetime=FOR_EVER), EProcess(lifetime=FOR_EVER)
    for value in (1.0, 0.0, 0.0, 1.0, 0.0):
        one.value(value, 0.3)
    block.counts([2], 5, [0.3])
    assert block.wealth == pytest.approx(one.wealth)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_a_value_outside_0_to_1_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        EProcess().value(value, 0.5)


def test_at_the_bound_the_wealth_ever_reaches_5_in_at_most_a_fifth_of_the_lifetimes() -> None:
    """Ville: at most 0.2, whatever the process looked like before; also not much less, or it would be of no use."""
    rng = np.random.default_rng(1)
    reached = 0
    for _ in range(200):
        process = EProcess(lifetime=300)
        for value in (rng.random(300) < 0.3).tolist():
            process.value(value, 0.3)
        reached += process.largest >= 5
    assert 0.05 < reached / 200 <= 0.2


def test_a_change_after_a_quiet_time_is_found() -> None:
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.random(3000) < 0.05, rng.random(400) < 0.3])
    process = EProcess(lifetime=3000)
    for value in values[:3000].tolist():
        process.value(value, 0.1)
    assert process.largest < 20
    for value in values[3000:].tolist():
        process.value(value, 0.1)
    assert process.largest >= 20


def test_a_change_after_a_thousand_lifetimes_is_found() -> None:
    process = EProcess(lifetime=1000)
    for _ in range(10_000):
        process.counts([0], [100], [0.1])
    assert process.largest == 1.0
    # what waits is 1 / (2 e) after a lifetime, and about a thousandth of that now; each 1 multiplies a stake by up to
    # 4 / 1.3, and a third of what joined in the last block, 1 / (2 e) / 1000 / 10,000 / 3, has to become 20
    for _ in range(20):
        process.value(1.0, 0.1)
    assert process.largest >= 20
