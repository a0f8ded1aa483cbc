"""Scores stratum by stratum and the confusion matrix, against sums worked out by hand and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from sdcompress.evaluation.strata import balanced_metric, confusion, stratum_scores
from sdcompress.schema.report import Evaluation, ExitEvaluation

NAMES = ("a", "b", "c", "none")
LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2])
ANSWERS = np.array([0, 0, 0, 1, 1, 2, 0, 0])
LOSS = np.float32(LABELS != ANSWERS)


def test_each_stratum_by_hand() -> None:
    found = stratum_scores(NAMES, LABELS, LOSS)
    assert [(one.name, one.samples, one.metric) for one in found] == [
        ("a", 4, 0.75), ("b", 2, 0.5), ("c", 2, 0.0), ("none", 0, None),
    ]  # fmt: skip
    assert all(one.last_exit_metric is None for one in found)
    assert balanced_metric(found) == pytest.approx((0.75 + 0.5 + 0) / 3)


def test_what_the_last_exit_does_stands_beside_the_policy() -> None:
    left = np.array([0, 0, 0, 1, 1, 1, 0, 1])
    found = stratum_scores(NAMES, LABELS, LOSS, [np.ones(8), np.zeros(8)], left)
    assert [one.last_exit_metric for one in found] == [1, 1, 1, None]
    assert [one.metric_by_exit for one in found] == [(0, 1)] * 3 + [()]
    assert [one.shares for one in found] == [(0.75, 0.25), (0, 1), (0.5, 0.5), ()]


def test_the_cells_of_the_confusion_matrix() -> None:
    assert confusion(LABELS, ANSWERS, 4) == ((0, 0, 3), (0, 1, 1), (1, 1, 1), (1, 2, 1), (2, 0, 2))


def test_against_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels, answers = rng.integers(0, 9, 500), rng.integers(0, 9, 500)
    assert balanced_metric(stratum_scores([*"abcdefghi"], labels, np.float32(labels != answers))) == pytest.approx(
        balanced_accuracy_score(labels, answers)
    )
    matrix = np.zeros((9, 9), np.int64)
    for label, answer, samples in confusion(labels, answers, 9):
        matrix[label, answer] = samples
    np.testing.assert_array_equal(matrix, confusion_matrix(labels, answers))


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (((0, 9, 8),), "beyond the 4"),
        (((0, 0, 7),), "to 8 in all"),
        (((3, 0, 8),), "add up to the samples"),
        (((-1, 0, 8),), "greater than or equal"),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused(cells: object, said: str) -> None:
    exits = (ExitEvaluation(name="final", metric=0.5),)
    with pytest.raises(ValidationError, match=said):
        Evaluation.model_validate(
            {"kind": "artifact", "name": "n", "source": "s", "data": "d", "split": "test", "samples": 8, "exits": exits,
             "metric_name": "accuracy", "binary_loss": True, "stratum": "class",
             "strata": stratum_scores(NAMES, LABELS, LOSS), "confusion": cells}
        )  # fmt: skip
