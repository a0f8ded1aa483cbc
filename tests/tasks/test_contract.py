"""What every task must keep, and what the check of it notices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from check_task import check_task

from sdcompress.tasks import Task
from sdcompress.tasks.classification import Classification
from sdcompress.tasks.multilabel import MultiLabel
from sdcompress.tasks.regression import Regression
from sdcompress.tasks.segmentation import Segmentation

TASKS = (
    Segmentation(tuple("ab"), (3, 4)),
    Segmentation(tuple("abcde"), (6, 5), 11),
    Classification(("a", "b")),
    Classification(tuple("abcdefg")),
    Regression(("height",), mean=(170.0,), std=(9.5,), bound=20.0, step=0.5),
    Regression(tuple("abc"), "huber"),
    Regression(tuple("ab"), "gaussian", (0.0, 100.0), (1.0, 25.0), (2.0, 40.0), 1.0),
    MultiLabel(("a",)),
    MultiLabel(tuple("abcd"), (0.1, 0.5, 0.7, 0.9)),
)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.record.name}-{len(task.outputs)}")
def test_every_task_keeps_the_contract(task: Task) -> None:
    check_task(task)


class Squared(MultiLabel):
    """The square of the Jaccard distance is no metric."""

    def loss(self, decisions: Any, targets: Any) -> Any:
        return super().loss(decisions, targets) ** 2


class Smaller(Classification):
    """Its numpy says something else than its nodes."""

    def signals(self, outputs: Any, temperature: float = 1.0) -> Any:
        return super().signals(outputs * np.float32(0.9), temperature)


@pytest.mark.parametrize("task", [Squared(tuple("abcd")), Smaller(tuple("abcd"))], ids=lambda task: type(task).__name__)
def test_a_task_that_breaks_it_is_found(task: Task) -> None:
    with pytest.raises(AssertionError):
        check_task(task)
