"""Two evaluations compared image by image."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from pydantic import ValidationError

from sdcompress.evaluation.early_exit import paired_difference, paired_interval
from sdcompress.evaluation.paired import accuracy_difference, digest_of_labels, pack
from sdcompress.schema.report import Evaluation, ExitScore

LABELS = np.arange(945) % 7


def evaluation(answers: np.ndarray, **changed: object) -> Evaluation:
    exits = (ExitScore(name="final", accuracy=float(answers.mean()), nll=0.1, ece=0.1),)
    fields = {
        "kind": "artifact", "name": "net", "source": "net", "data": "cells", "split": "test", "samples": len(answers),
        "exits": exits, "right": pack(answers), "labels_sha256": digest_of_labels(LABELS),
    }  # fmt: skip
    return Evaluation.model_validate({**fields, **changed})


def test_the_interval_against_the_standard_deviation_of_the_differences() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        mine, theirs = rng.random((2, 300)) < [[0.9], [0.8]]
        gaps = mine.astype(float) - theirs
        half = 1.959964 * gaps.std() / np.sqrt(300)
        expected = (gaps.mean(), gaps.mean() - half, gaps.mean() + half)
        assert paired_difference(mine, theirs) == pytest.approx(expected, abs=1e-12)


def test_where_all_differences_are_equal_the_rule_of_three_stands_in() -> None:
    assert paired_interval(0, 0, 300) == (0, -0.01, 0.01)
    assert paired_interval(300, 0, 300) == (1, 0.99, 1.01)


def test_answers_travel_through_the_record() -> None:
    mine = np.random.default_rng(1).random(945) < 0.9
    theirs = np.random.default_rng(2).random(945) < 0.9
    found = accuracy_difference(
        *(Evaluation.model_validate_json(evaluation(r).model_dump_json()) for r in (mine, theirs))
    )
    assert found is not None
    assert (found.value, found.low, found.high) == paired_difference(mine, theirs)


@pytest.mark.parametrize(
    "changed",
    [{"split": "validation"}, {"data": "other"}, {"right": None}, {"labels_sha256": digest_of_labels(LABELS[::-1])}],
)
def test_other_images_are_not_paired(changed: dict[str, object]) -> None:
    right = np.ones(945, np.bool_)
    assert accuracy_difference(evaluation(right), evaluation(right)) is not None
    assert accuracy_difference(evaluation(right), evaluation(right, **changed)) is None
    assert accuracy_difference(evaluation(right, **changed), evaluation(right)) is None


@pytest.mark.parametrize("right", ["", "not base64!", base64.b64encode(bytes(10)).decode(), "é"])
def test_answers_that_are_not_as_many_as_the_images_are_refused(right: str) -> None:
    with pytest.raises(ValidationError, match="does not hold 945 bits"):
        evaluation(np.ones(945, np.bool_), right=right)
