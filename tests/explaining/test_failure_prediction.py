"""AUROC and AURC against values worked out by hand, and against scikit-learn."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sdcompress.explaining.early_exit import aurc, auroc


def test_auroc_counts_pairs() -> None:
    # right 0.9 and 0.7, wrong 0.8 and 0.6: of the four pairs only (0.7, 0.8) stands the wrong way round
    assert auroc(np.array([0.9, 0.8, 0.7, 0.6]), np.float32([0, 1, 0, 1])) == 3 / 4
    assert auroc(np.array([0.5, 0.5]), np.float32([0, 1])) == 0.5


def test_auroc_is_that_of_scikit_learn_with_ties_too() -> None:
    rng = np.random.default_rng(0)
    scores, right = rng.integers(0, 20, 500).astype(np.float32), rng.random(500) < 0.7
    assert auroc(scores, np.float32(~right)) == pytest.approx(roc_auc_score(right, scores), abs=1e-12)


@pytest.mark.parametrize("loss", [[0, 0], [1, 1], [0, 0.5]])
def test_no_auroc_where_there_are_no_pairs(loss: list[float]) -> None:
    assert auroc(np.array([0.1, 0.9]), np.float32(loss)) is None


def test_aurc_averages_the_error_of_the_surest() -> None:
    # the surest alone 0, the surest two 1/2, all three 1/3
    assert aurc(np.array([0.7, 0.9, 0.8]), np.float32([0, 0, 1])) == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)
    assert aurc(np.array([0.7, 0.9, 0.8]), np.float32([0, 0.5, 1])) == pytest.approx((0.5 + 0.75 + 0.5) / 3)
    assert aurc(np.array([0.7, 0.9]), np.float32([0, 0])) == 0
    assert aurc(np.empty(0), np.empty(0, np.float32)) is None


def test_aurc_of_ties_is_the_mean_over_their_orders() -> None:
    loss = np.float32([0, 1, 1, 0, 0.5])
    orders = [np.mean(np.cumsum(loss[list(order)]) / np.arange(1, 6)) for order in permutations(range(5))]
    assert aurc(np.full(5, 0.5), loss) == pytest.approx(np.mean(orders))
