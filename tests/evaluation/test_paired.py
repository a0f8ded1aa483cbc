"""Two evaluations compared sample by sample."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import scipy.stats
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
    tenths = np.full(300, 0.1, np.float32)
    assert paired_difference(tenths, 2 * tenths) == pytest.approx((0.1, 0.09, 0.11))


def test_of_counted_losses_one_more_sample_of_either_kind_differs() -> None:
    # 4 of 998: 4 / 1000 +- 1.96 * sqrt((6 / 1000 - 0.000016) / 1000)
    assert paired_interval(4, 0, 998) == pytest.approx((4 / 998, -0.000794, 0.008794), abs=1e-6)
    loss, other = np.zeros((2, 998), np.float32)
    other[:4] = 1
    assert paired_difference(loss, other) == paired_interval(4, 0, 998)
    assert paired_interval(2, 6, 998) == pytest.approx((-4 / 998, -0.010193, 0.002193), abs=1e-6)
    # the example of ci.prop.ps in the R package statpsych
    assert paired_interval(26, 4, 48)[1:] == pytest.approx((0.2548067, 0.6251933), abs=1e-6)
    assert paired_interval(300, 0, 300)[1:] == (pytest.approx(0.9804, abs=1e-4), 1)


def test_intervals_of_few_samples_that_differ_hold_the_truth_about_as_often_as_they_say() -> None:
    """Samples that differ are rare, so that their numbers are Poisson; only a sum over all of them is exact."""
    numbers = np.arange(40)
    for gained, lost in ((3.1, 0), (4.4, 0), (4, 1), (8, 2), (3, 3)):
        expected = (gained - lost) / 1000
        held = sum(
            scipy.stats.poisson.pmf(b, gained) * scipy.stats.poisson.pmf(c, lost)
            for b in numbers
            for c in numbers
            if (interval := paired_interval(int(b), int(c), 1000))[1] <= expected <= interval[2]
        )
        assert held > 0.93


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
