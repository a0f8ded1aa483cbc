"""What changes between two ways of computing the same exits, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from signals import TASK

from sdcompress.evaluation.comparison import ExitComparison, PolicyComparison
from sdcompress.schema.change import PolicyChange
from sdcompress.tasks import build


def logits(*classes: int) -> np.ndarray:
    """[N, 3], 2 for the class and 0 for the others."""
    return 2 * np.eye(3, dtype=np.float32)[list(classes)]


LABELS = np.array([0, 1, 2, 2])


def test_every_exit_is_counted_over_all_batches() -> None:
    before = np.stack([logits(0, 1, 2, 0), logits(0, 1, 2, 2)])
    after = np.stack([logits(0, 2, 0, 2), logits(0, 1, 2, 2)])
    after[0, 3] += 0.5  # moves every logit of one image and no answer
    found = ExitComparison(TASK, ["exit1", "final"])
    found.add(before[:, :3], after[:, :3], LABELS[:3])
    found.add(before[:, 3:], after[:, 3:], LABELS[3:])
    first, last = found.qualities()
    assert (first.change.name, last.change.name) == ("exit1", "final")
    assert (first.change.metric_before, first.change.metric_after) == (0.75, 0.5)
    assert (first.change.decision_changes, first.change.changes_text) == (3, "3 (75.00%)")
    assert first.added_loss == 1
    assert first.change.max_abs_diff == 2.5
    assert first.largest_differences[0] == 3
    assert first.finite
    assert (last.added_loss, last.change.decision_changes, last.change.max_abs_diff) == (0, 0, 0.0)
    confidence = np.exp(2) / (np.exp(2) + 2)
    assert last.further["ece"] == pytest.approx(1 - confidence)


def test_label_sets_lose_a_share_of_a_sample() -> None:
    targets = np.array([[1, 1, 0], [0, 0, 1]], np.uint8)
    before = np.float32([[[1, 1, -1], [-1, -1, 1]]])
    after = np.float32([[[1, -1, -1], [-1, -1, 1]]])  # one of two labels, Jaccard index 1/2
    found = ExitComparison(build("multilabel", ("a", "b", "c"), {}), ["final"])
    found.add(before, after, targets)
    (only,) = found.qualities()
    assert (only.change.metric_before, only.change.metric_after, only.change.decision_changes) == (1.0, 0.75, 1)
    assert (only.added_loss, only.loses_more_than(0.25), only.loses_more_than(0.24)) == (0.5, False, True)
    assert only.further["subset_accuracy"] == 0.5


def test_masks_say_what_share_of_their_pixels_changed() -> None:
    before = np.zeros((1, 2, 2, 4, 4), np.float32)
    before[:, :, 0] = 1
    after = before.copy()
    after[0, 0, 1, 0, :2] = 2  # 2 of the 32 pixels of both masks
    found = ExitComparison(build("segmentation", ("a", "b"), {"size": [4, 4]}), ["final"])
    found.add(before, after, np.zeros((2, 4, 4), np.uint8))
    (only,) = found.qualities()
    assert (only.change.decision_changes, only.change.changed_share) == (1, 2 / 32)
    assert only.change.changes_text == "6.25% of pixels"


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_is_not_finite_is_said_and_is_the_worst(broken: float) -> None:
    before = logits(0, 1, 2, 2)[None]
    after = before.copy()
    after[0, 1, 0] = broken
    found = ExitComparison(TASK, ["final"])
    with np.errstate(invalid="ignore"):
        found.add(before, after, LABELS)
    (only,) = found.qualities()
    assert not only.finite
    assert only.largest_differences[0] == 1
    assert np.isfinite(only.change.max_abs_diff)  # a number that JSON has


def test_a_policy_is_counted_by_who_leaves_where_and_what_they_are_told() -> None:
    found = PolicyComparison(TASK, 3)
    before = TASK.prediction(logits(0, 1, 2, 0), np.array([0, 0, 1, 2]))
    after = TASK.prediction(logits(0, 1, 0, 2), np.array([0, 1, 2, 2]))
    for rows in (slice(0, 1), slice(1, 4)):
        found.add(
            TASK.prediction(before.outputs[rows], before.exit_index[rows]),
            TASK.prediction(after.outputs[rows], after.exit_index[rows]),
            LABELS[rows],
        )
    assert found.change() == PolicyChange(
        metric_before=0.75,
        metric_after=0.75,
        exit_changes=2,
        decision_changes=2,
        changed_share=0.5,
        shares_before=(0.5, 0.25, 0.25),
        shares_after=(0.25, 0.25, 0.5),
    )
