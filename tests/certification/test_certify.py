"""The whole procedure against a known truth: a large population, from which calibrations are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcompress.artifact.evidence import Evidence
from sdcompress.calibration.threshold_path import threshold_path
from sdcompress.calibration.thresholds import NEVER, choose_thresholds
from sdcompress.certification.certify import bonferroni_delta, certified_drop, certify, excess_losses
from sdcompress.schema import recipe

STAGE_MS = (1.0, 1.0, 1.0)
COUNT = 200_000


@pytest.fixture(scope="module")
def population() -> Evidence:
    """Three exits, the later the better; the surer the righter, and often right where the last one is wrong."""
    rng = np.random.default_rng(0)
    ease = rng.normal(size=COUNT)
    sure = [ease + depth + rng.normal(size=COUNT) * 0.7 for depth in (0.6, 1.2, 1.8)]
    right = [value + rng.normal(size=COUNT) * 0.9 > 0 for value in sure]
    confidences = [1 / (1 + np.exp(-1.5 * np.abs(value))) for value in sure[:2]]
    return Evidence(np.array(confidences, np.float32), 1 - np.array(right, np.float32))


def some(whole: Evidence, rows: np.ndarray) -> Evidence:
    return Evidence(whole.scores[:, rows], whole.loss[:, rows])


def path_of(tuning: Evidence) -> tuple[tuple[float, ...], ...]:
    return threshold_path(tuning.scores, tuning.loss, STAGE_MS)


@pytest.mark.parametrize("unlabelled", [False, True])
def test_calibrations_that_break_their_promise_are_as_rare_as_they_say(population: Evidence, unlabelled: bool) -> None:
    max_drop, delta, runs = 0.02, 0.05, 50
    whole = population
    if unlabelled:  # an answer that is as right as the last one's stands for the same answer
        whole = Evidence(population.scores, (population.loss != population.loss[-1]).astype(np.float32))
    broken = useful = naive = 0
    rng = np.random.default_rng(1)
    for _ in range(runs):
        rows = rng.integers(0, COUNT, 1600)  # drawn with replacement: independent
        tuning, rest = some(whole, rows[:400]), some(whole, rows[400:])
        path = path_of(tuning)
        level = certified_drop(rest, path, "binomial" if unlabelled else "betting", max_drop, delta)
        broken += excess_losses(whole, path[level.certified]).mean() > max_drop
        useful += level.certified > 0
        if unlabelled:
            continue
        everything = some(whole, rows)
        chosen = choose_thresholds(everything.scores, everything.loss, STAGE_MS, max_drop)
        naive += excess_losses(whole, chosen).mean() > max_drop
    assert broken <= scipy.stats.binom.ppf(0.9999, runs, delta)
    assert useful > runs * 0.7
    assert unlabelled or naive > runs * 0.35  # what the promise is worth


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), exits=st.integers(2, 4), samples=st.integers(1, 60))
def test_losses_by_hand(seed: int, exits: int, samples: int) -> None:
    rng = np.random.default_rng(seed)
    levels = np.float32([0.25, 0.5, 0.75, 1.0, np.nan])
    evidence = Evidence(
        rng.choice(levels, (exits - 1, samples)), rng.choice(np.float32([0, 0.25, 1]), (exits, samples))
    )
    thresholds = tuple(float(value) for value in rng.choice([0.25, 0.5, 0.75, 1.0, NEVER], exits - 1))
    found = excess_losses(evidence, thresholds)
    for row in range(samples):
        exit_ = 0
        while exit_ < exits - 1 and not evidence.scores[exit_, row] >= thresholds[exit_]:
            exit_ += 1
        assert found[row] == float(evidence.loss[exit_, row]) - float(evidence.loss[-1, row])


def test_a_step_is_certified_only_after_all_before_it() -> None:
    """A bad step in the middle of the path: what comes behind it is not looked at, however good."""
    confidences = np.full((1, 2000), 0.5, np.float32)
    loss = np.zeros((2, 2000), np.float32)
    loss[0, :400] = 1
    confidences[0, :400] = 0.7
    confidences[0, 400:800] = 0.9
    order = np.random.default_rng(0).permutation(2000)  # the betting test is for samples in random order
    confidences, loss = confidences[:, order], loss[:, order]
    path = ((NEVER,), (0.9,), (0.7,), (0.5,))
    level = certified_drop(Evidence(confidences, loss), path, "betting", 0.15, 0.05)
    assert (level.certified, len(level.p_values)) == (1, 2)
    level = certified_drop(Evidence(confidences, loss), path, "betting", 0.3, 0.05)
    assert (level.certified, len(level.p_values)) == (3, 3)


def test_drops_share_what_may_go_wrong(population: Evidence) -> None:
    assert bonferroni_delta(0.95, 1) == 0.05
    assert bonferroni_delta(0.9, 4) == 0.025
    rows = np.arange(8000)
    path = path_of(some(population, rows[:2000]))
    settings_ = recipe.Calibrate(max_drop=0.02, confidence=0.9, extra_drops=(0.04, 0.01, 0.02))
    levels = certify(some(population, rows[2000:]), path, settings_, "betting")
    assert [level.max_drop for level in levels] == [0.01, 0.02, 0.04]  # the same drop twice is one
    assert all(level.delta == bonferroni_delta(0.9, 3) for level in levels)
    assert levels[0].certified < levels[1].certified < levels[2].certified
