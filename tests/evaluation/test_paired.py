"""Two evaluations compared sample by sample."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from pydantic import ValidationError

from sdcompress.evaluation.paired import digest_of_targets, metric_difference, pack, paired_difference, paired_interval
from sdcompress.schema.report import Evaluation, ExitEvaluation

LABELS = np.arange(945) % 7


def evaluation(loss: np.ndarray, **changed: object) -> Evaluation:
    exits = (ExitEvaluation(name="final", metric=float(1 - loss.mean())),)
    fields = {
        "kind": "artifact", "name": "net", "source": "net", "data": "cells", "split": "test", "samples": len(loss),
        "exits": exits, "losses": pack(loss), "targets_sha256": digest_of_targets(LABELS), "metric_name": "accuracy",
        "binary_loss": bool(np.isin(loss, (0, 1)).all()),
    }  # fmt: skip
    return Evaluation.model_validate({**fields, **changed})


def test_the_interval_against_the_standard_deviation_of_the_differences() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        mine, theirs = np.float32(rng.random((2, 300)) * (rng.random((2, 300)) < 0.5))
        gaps = theirs.astype(float) - mine
        half = 1.959964 * gaps.std() / np.sqrt(300)
        expected = (gaps.mean(), gaps.mean() - half, gaps.mean() + half)
        assert paired_difference(mine, theirs) == pytest.approx(expected, abs=1e-12)


def test_where_all_differences_are_equal_the_rule_of_three_stands_in() -> None:
    assert paired_interval(0, 0, 300) == (0, -0.01, 0.01)
    assert paired_interval(300, 300, 300) == (1, 0.99, 1.01)


@pytest.mark.parametrize("binary", [True, False])
def test_losses_travel_through_the_record(binary: bool) -> None:
    mine, theirs = (np.random.default_rng(seed).random(945).astype(np.float32) for seed in (1, 2))
    if binary:
        mine, theirs = np.float32(mine < 0.1), np.float32(theirs < 0.1)
    found = metric_difference(
        *(Evaluation.model_validate_json(evaluation(r).model_dump_json()) for r in (mine, theirs))
    )
    assert found is not None
    assert (found.value, found.low, found.high) == paired_difference(mine, theirs)


@pytest.mark.parametrize(
    "changed",
    [{"split": "validation"}, {"data": "other"}, {"losses": None}, {"targets_sha256": digest_of_targets(LABELS[::-1])}],
)
def test_other_samples_are_not_paired(changed: dict[str, object]) -> None:
    loss = np.zeros(945, np.float32)
    assert metric_difference(evaluation(loss), evaluation(loss)) is not None
    assert metric_difference(evaluation(loss), evaluation(loss, **changed)) is None
    assert metric_difference(evaluation(loss, **changed), evaluation(loss)) is None


@pytest.mark.parametrize("losses", ["", "not base64!", base64.b64encode(bytes(10)).decode(), "é"])
def test_losses_that_are_not_as_many_as_the_samples_are_refused(losses: str) -> None:
    with pytest.raises(ValidationError, match="does not hold 945 bits"):
        evaluation(np.zeros(945, np.float32), losses=losses)
