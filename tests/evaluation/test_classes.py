"""Accuracy class by class and the confusion matrix, against sums worked out by hand and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from sdcompress.evaluation.classes import balanced_accuracy, class_scores, confusion
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from sdcompress.schema.report import Evaluation, ExitScore

NAMES = ("a", "b", "c", "none")
LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2])
ANSWERS = np.array([0, 0, 0, 1, 1, 2, 0, 0])


def test_each_class_by_hand() -> None:
    found = class_scores(NAMES, LABELS, ANSWERS)
    assert [(one.name, one.samples, one.accuracy) for one in found] == [
        ("a", 4, 0.75), ("b", 2, 0.5), ("c", 2, 0.0), ("none", 0, None),
    ]  # fmt: skip
    assert all(one.last_accuracy is None for one in found)
    assert balanced_accuracy(found) == pytest.approx((0.75 + 0.5 + 0) / 3)


def test_what_the_last_exit_does_stands_beside_the_policy() -> None:
    found = class_scores(NAMES, LABELS, ANSWERS, last=LABELS)
    assert [one.last_accuracy for one in found] == [1, 1, 1, None]


def test_the_cells_of_the_confusion_matrix() -> None:
    assert confusion(LABELS, ANSWERS, 4) == ((0, 0, 3), (0, 1, 1), (1, 1, 1), (1, 2, 1), (2, 0, 2))


def test_against_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels, answers = rng.integers(0, 9, 500), rng.integers(0, 9, 500)
    assert balanced_accuracy(class_scores([*"abcdefghi"], labels, answers)) == pytest.approx(
        balanced_accuracy_score(labels, answers)
    )
    matrix = np.zeros((9, 9), np.int64)
    for label, answer, images in confusion(labels, answers, 9):
        matrix[label, answer] = images
    np.testing.assert_array_equal(matrix, confusion_matrix(labels, answers))


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (((0, 9, 8),), "beyond the 4"),
        (((0, 0, 7),), "to 8 in all"),
        (((3, 0, 8),), "add up to the images"),
        ((), "add up"),
        (((-1, 0, 8),), "greater than or equal"),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused(cells: object, said: str) -> None:
    exits = (ExitScore(name="final", accuracy=0.5, nll=0.1, ece=0.1),)
    with pytest.raises(ValidationError, match=said):
        Evaluation.model_validate(
            {"kind": "artifact", "name": "n", "source": "s", "data": "d", "split": "test", "samples": 8, "exits": exits,
             "classes": class_scores(NAMES, LABELS, ANSWERS), "confusion": cells}
        )  # fmt: skip
