"""Certify thresholds: a path of them, made on other samples, is tested step by step."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.evidence import Evidence
from sdcompress.certification.fixed_sequence import fixed_sequence
from sdcompress.certification.groups import GroupBy, group_masks, in_every_group
from sdcompress.certification.p_values import betting_p_value, binomial_p_value
from sdcompress.policies import leave
from sdcompress.schema import recipe
from sdcompress.schema.manifest import CertifiedDrop
from sdcompress.tasks import metric_of

__all__ = [
    "Path",
    "PolicyMetrics",
    "TestKind",
    "certified_drop",
    "certify",
    "deltas",
    "kind_of_test",
    "losses",
    "p_value_of",
    "policy_metrics",
    "smallest_drop",
]

Path = tuple[tuple[float, ...], ...]
TestKind = Literal["betting", "binomial"]
Differences = npt.NDArray[np.float64]


class PolicyMetrics(NamedTuple):
    """What a policy gives on the samples that certified it.

    Attributes:
        metric: the task's metric; None where targets are not known.
        reference_metric: of the reference; likewise.
        shares: of the samples that leave at each exit.
    """

    metric: float | None
    reference_metric: float | None
    shares: tuple[float, ...]


def losses(evidence: Evidence, thresholds: tuple[float, ...]) -> Differences:
    """Return each sample's loss under the thresholds less the reference's, float64 [N] in [-1, 1].

    The reference is the last exit, or another network. The mean is the drop of the metric. In evidence of disagreement
    the loss is the distance to the reference's decision. Its mean is then at least the drop, by the triangle
    inequality: loss(exit, target) <= loss(exit, reference) + loss(reference, target).
    """
    left = leave(evidence.scores, thresholds)
    return np.subtract(evidence.loss[left, np.arange(len(left))], evidence.reference, dtype=np.float64)


def deltas(confidence: float, drops: int) -> float:
    """The probability of an error that each of several drops may use up: (1 - confidence) / drops (Bonferroni)."""
    return float((1 - Fraction(str(confidence))) / drops)


def smallest_drop(settings: recipe.Calibrate) -> tuple[float, float]:
    """Return the smallest drop that is asked for, and the delta of each test; needs a confidence."""
    assert settings.confidence is not None
    drops = {settings.max_drop, *settings.extra_drops}
    return min(drops), deltas(settings.confidence, len(drops))


def kind_of_test(*, unlabelled: bool, binary_loss: bool) -> TestKind:
    """Return the exact binomial test where every loss is 0 or 1, else the betting test.

    Args:
        unlabelled: disagreement is tested, which is never negative.
        binary_loss: of the task.
    """
    return "binomial" if unlabelled and binary_loss else "betting"


def p_value_of(test: TestKind, differences: Differences, alpha: float, delta: float) -> float:
    """Return the p-value of "the mean of these losses is above alpha"; delta sizes the bets of the betting test."""
    if test == "betting":
        return betting_p_value(differences, alpha, delta)
    return binomial_p_value(int(differences.sum()), len(differences), alpha)


def certified_drop(
    evidence: Evidence, path: Path, test: TestKind, max_drop: float, delta: float, *, group_by: GroupBy = None
) -> CertifiedDrop:
    """Fixed-sequence testing of path[1], path[2], ...; path[0] has no early exit and loses nothing to the last exit.

    Args:
        evidence: of samples that had no part in making the path, in an order fixed beforehand.
        path: thresholds, safest first.
        test: the p-value: betting for losses in [-1, 1], binomial for losses in {0, 1}.
        max_drop: alpha.
        delta: of the test.
        group_by: the groups in each of which it is tested.
    """

    @lru_cache(maxsize=4096)  # most strata lose at a step what they lost at the step before
    def cached(content: bytes) -> float:
        return p_value_of(test, np.frombuffer(content, np.float64), max_drop, delta)

    def p_value(differences: Differences) -> float:
        return cached(differences.tobytes())

    def p_values() -> Iterator[float]:
        for thresholds in path[1:]:
            yield in_every_group(losses(evidence, thresholds), group_masks(evidence, thresholds, group_by), p_value)

    outcome = fixed_sequence(p_values(), delta)
    return CertifiedDrop(max_drop=max_drop, delta=delta, certified=outcome.rejected, p_values=outcome.p_values)


def certify(evidence: Evidence, path: Path, settings: recipe.Calibrate, test: TestKind) -> tuple[CertifiedDrop, ...]:
    """Test the path for every drop of the settings; smallest first.

    Args:
        evidence: of the part that certifies.
        path: made without it.
        settings: with a confidence.
        test: see ``kind_of_test``.
    """
    assert settings.confidence is not None
    drops = sorted({settings.max_drop, *settings.extra_drops})
    delta = deltas(settings.confidence, len(drops))
    return tuple(certified_drop(evidence, path, test, drop, delta, group_by=settings.group_by) for drop in drops)


def policy_metrics(evidence: Evidence, thresholds: tuple[float, ...], *, unlabelled: bool) -> PolicyMetrics:
    """Return the metrics of a policy on the samples that certified it.

    Args:
        evidence: of these samples.
        thresholds: of the policy.
        unlabelled: the metric is not known.
    """
    left = leave(evidence.scores, thresholds)
    return PolicyMetrics(
        metric=None if unlabelled else metric_of(evidence.loss[left, np.arange(len(left))]),
        reference_metric=None if unlabelled else metric_of(evidence.reference),
        shares=tuple(float((left == exit_).mean()) for exit_ in range(len(evidence.loss))),
    )
