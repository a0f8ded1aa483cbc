"""Losses between 0 and 1: disagreement bounds the drop for any metric, and the betting test keeps its promise."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcompress.artifact.evidence import Evidence
from sdcompress.calibration.threshold_path import exit_path, threshold_path
from sdcompress.calibration.thresholds import NEVER, choose_thresholds
from sdcompress.certification.certify import certified_drop, excess_losses, kind_of_test, policy_metrics
from sdcompress.policies import exit_index_of
from sdcompress.tasks.classification import Classification

STAGE_MS = (1.0, 1.0, 1.0)
COUNT, RUNS, DROP, DELTA = 100_000, 80, 0.03, 0.1


def jaccard(decisions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """1 - |A and B| / |A or B| of label sets, float32 [N]; 0 for two empty ones. Kosub, arXiv:1612.02696: a metric."""
    either = (decisions | targets).sum(axis=-1)
    both = (decisions & targets).sum(axis=-1)
    return np.where(either > 0, 1 - both / np.maximum(either, 1), 0).astype(np.float32)


def of_classes(decisions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return Classification(tuple("abcd")).loss(decisions, targets)


def drawn(seed: int, kind: str, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Decisions of three exits, the later the better, and targets; of one class or of a set of five labels."""
    rng = np.random.default_rng(seed)
    if kind == "class":
        targets = rng.integers(0, 4, samples)
        wrong = rng.random((3, samples)) < np.array([0.3, 0.2, 0.1])[:, None]
        return np.where(wrong, rng.integers(0, 4, (3, samples)), targets), targets
    targets = (rng.random((samples, 5)) < 0.4).astype(np.uint8)
    flipped = rng.random((3, samples, 5)) < np.array([0.15, 0.1, 0.05])[:, None, None]
    return targets ^ flipped.astype(np.uint8), targets


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(["class", "labels"]), samples=st.integers(1, 60))
def test_disagreement_is_at_least_the_drop(seed: int, kind: str, samples: int) -> None:
    decisions, targets = drawn(seed, kind, samples)
    loss = of_classes if kind == "class" else jaccard
    rng = np.random.default_rng(seed)
    scores = rng.random((2, samples), np.float32)
    drop = Evidence(scores, np.stack([loss(exit_, targets) for exit_ in decisions]))
    disagreement = Evidence(scores, np.stack([loss(exit_, decisions[-1]) for exit_ in decisions]))
    for thresholds in ((0.5, 0.5), (0.0, 0.0), (0.9, 0.2), (NEVER, NEVER)):
        assert (excess_losses(drop, thresholds) <= excess_losses(disagreement, thresholds) + 1e-6).all()
        assert (excess_losses(disagreement, thresholds) >= 0).all()
    # another network as the reference: its own losses are 0 in evidence of disagreement
    other = drawn(seed + 1, kind, samples)[0][-1]
    drop = Evidence(scores, drop.loss, reference_loss=loss(other, targets))
    nothing = np.zeros(samples, np.float32)
    disagreement = Evidence(scores, np.stack([loss(exit_, other) for exit_ in decisions]), reference_loss=nothing)
    assert (excess_losses(drop, (0.5, 0.5)) <= excess_losses(disagreement, (0.5, 0.5)) + 1e-6).all()


def test_only_losses_of_0_and_1_get_the_exact_test() -> None:
    assert kind_of_test(unlabelled=True, binary_loss=True) == "binomial"
    assert kind_of_test(unlabelled=True, binary_loss=False) == "betting"
    assert kind_of_test(unlabelled=False, binary_loss=True) == "betting"  # differences may be negative


@pytest.fixture(scope="module")
def population() -> tuple[Evidence, Evidence]:
    """Drop and disagreement of the same exits: label sets that are easier the surer an exit is."""
    rng = np.random.default_rng(0)
    ease = rng.random(COUNT)
    targets = (rng.random((COUNT, 5)) < 0.4).astype(np.uint8)
    scores = np.clip(ease + 0.15 * rng.normal(size=(2, COUNT)), 0, 1).astype(np.float32)
    rates = np.array([0.30, 0.22, 0.12])[:, None] * (1 - ease) ** 2
    decisions = targets ^ (rng.random((3, COUNT, 5)) < rates[..., None]).astype(np.uint8)
    return (
        Evidence(scores, np.stack([jaccard(exit_, targets) for exit_ in decisions])),
        Evidence(scores, np.stack([jaccard(exit_, decisions[-1]) for exit_ in decisions])),
    )


@pytest.mark.parametrize("disagreement", [False, True])
def test_certificates_of_a_jaccard_loss_are_wrong_as_rarely_as_they_say(
    population: tuple[Evidence, Evidence], disagreement: bool
) -> None:
    drop, whole = population[0], population[disagreement]
    rng = np.random.default_rng(1)
    broken = useful = 0
    for _ in range(RUNS):
        rows = rng.integers(0, COUNT, 1800)
        tuning, rest = (Evidence(whole.scores[:, part], whole.loss[:, part]) for part in (rows[:300], rows[300:]))
        path = threshold_path(tuning.scores, tuning.loss, STAGE_MS)
        level = certified_drop(rest, path, "betting", DROP, DELTA)
        chosen = path[level.certified]
        broken += excess_losses(whole, chosen).mean() > DROP
        useful += level.certified > 0
        if level.certified:
            assert excess_losses(drop, chosen).mean() <= excess_losses(whole, chosen).mean() + 1e-6
    assert broken <= scipy.stats.binom.ppf(0.9999, RUNS, DELTA)
    assert useful > RUNS * 0.8


def test_figures_are_the_metric() -> None:
    loss = np.float32([[0.5, 0.25, 1], [0, 0.25, 0.5]])
    found = policy_metrics(Evidence(np.float32([[0.9, 0.1, 0.9]]), loss), (0.5,), unlabelled=False)
    assert found[:2] == pytest.approx((1 - (0.5 + 0.25 + 1) / 3, 1 - 0.25))
    assert found.shares == (pytest.approx(2 / 3), pytest.approx(1 / 3))


def test_thresholds_and_paths_of_a_jaccard_loss(population: tuple[Evidence, Evidence]) -> None:
    some = Evidence(population[0].scores[:, :2000], population[0].loss[:, :2000])
    for drop in (0.0, 0.01, 0.05):
        chosen = choose_thresholds(some.scores, some.loss, STAGE_MS, drop)
        assert excess_losses(some, chosen).mean() <= drop + 1e-9
    for path in (threshold_path(some.scores, some.loss, STAGE_MS), exit_path(some.scores, some.loss, 50)):
        assert len(path) > 10
        left = np.stack([exit_index_of(some.scores, step) for step in path])
        assert (np.diff(left, axis=0) <= 0).all()
        assert all(late <= early for before, step in pairwise(path) for early, late in zip(before, step, strict=True))
