"""Test a path of thresholds, made on other samples, step by step: Learn then Test, and conformal risk control."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.evidence import Evidence
from sdcompress.certification.groups import GroupBy, group_masks, intersection_union_p_value
from sdcompress.certification.p_values import betting_p_value, binomial_p_value
from sdcompress.policies import exit_index_of
from sdcompress.schema import recipe
from sdcompress.schema.manifest import CertifiedDrop
from sdcompress.tasks import metric_of

__all__ = [
    "Path",
    "PolicyMetrics",
    "TestKind",
    "bonferroni_delta",
    "certified_drop",
    "certify",
    "conformal_risk_control",
    "excess_losses",
    "fixed_sequence",
    "kind_of_test",
    "p_value_of",
    "policy_metrics",
    "smallest_drop",
]

Path = tuple[tuple[float, ...], ...]
TestKind = Literal["betting", "binomial"]
Differences = npt.NDArray[np.float64]
Exits = npt.NDArray[np.int64]


class PolicyMetrics(NamedTuple):
    """Metrics and exit shares of a policy on the samples that certified it.

    Attributes:
        metric: the task's metric; None where targets are not known.
        reference_metric: of the reference; likewise.
        shares: of the samples at each exit, [E].
        disagreement: mean loss of the decisions against those of the last exit; None where it is not known.
    """

    metric: float | None
    reference_metric: float | None
    shares: tuple[float, ...]
    disagreement: float | None


def excess_losses(evidence: Evidence, thresholds: tuple[float, ...]) -> Differences:
    """Return each sample's loss under the thresholds less the reference's, float64 [N] in [-1, 1].

    The reference is the last exit, or another network. The mean is the drop of the metric. In evidence of disagreement
    the loss is the distance to the reference's decision. Its mean is then at least the drop, by the triangle
    inequality: loss(exit, target) <= loss(exit, reference) + loss(reference, target).
    """
    return np.asarray(np.subtract(_policy_loss(evidence, thresholds)[0], evidence.reference, dtype=np.float64))


def _policy_loss(evidence: Evidence, thresholds: tuple[float, ...]) -> tuple[npt.NDArray[np.floating], Exits]:
    """Return the loss and the exit index of each sample under the thresholds, [N] each."""
    exit_index = exit_index_of(evidence.scores, thresholds)
    return evidence.loss[exit_index, np.arange(len(exit_index))], exit_index


def bonferroni_delta(confidence: float, drops: int) -> float:
    """Return the level at which each of several drops is tested: (1 - confidence) / drops (Bonferroni)."""
    return float((1 - Fraction(str(confidence))) / drops)


def smallest_drop(settings: recipe.Calibrate) -> tuple[float, float]:
    """Return the smallest drop of the settings, and the delta of each test; the settings need a confidence."""
    assert settings.confidence is not None
    drops = {settings.max_drop, *settings.extra_drops}
    return min(drops), bonferroni_delta(settings.confidence, len(drops))


def kind_of_test(*, unlabelled: bool, binary_loss: bool) -> TestKind:
    """Return the exact binomial test where every loss is 0 or 1, else the betting test.

    Args:
        unlabelled: disagreement is tested, which is never negative.
        binary_loss: of the task.
    """
    return "binomial" if unlabelled and binary_loss else "betting"


def p_value_of(test: TestKind, differences: Differences, alpha: float, delta: float) -> float:
    """Return the p-value of the hypothesis "the mean of these losses is above alpha".

    Args:
        test: the kind of the test.
        differences: [N] in the order fixed beforehand.
        alpha: target risk.
        delta: level of the test, by which the betting test sizes its bets.
    """
    if test == "betting":
        return betting_p_value(differences, alpha, delta)
    return binomial_p_value(int(differences.sum()), len(differences), alpha)


def fixed_sequence(p_values: Iterable[float], delta: float) -> tuple[int, tuple[float, ...]]:
    """Test hypotheses in a fixed order, each at the whole delta; stop at the first that is not rejected.

    Angelopoulos et al., "Learn then Test" (arXiv:2110.01052), section 2.3: the probability that any of the rejected
    hypotheses is true is at most delta, however many there are, because the first true one must be rejected for that.
    What may be used is the last that was *rejected*. Public code has shipped the one at which the test stopped, whose
    loss is not under control.

    Args:
        p_values: one for each hypothesis, in order; taken one by one, so that none is computed after the stop.
        delta: the probability of an error, in (0, 1).

    Returns:
        The number of rejected hypotheses, which are the first of the sequence. Then the p-values of all tested ones:
        those of the rejected, and that of the first that is not rejected, if there is one.
    """
    tested: list[float] = []
    for p_value in p_values:
        tested.append(p_value)
        if not p_value <= delta:  # also NaN stops
            return len(tested) - 1, tuple(tested)
    return len(tested), tuple(tested)


def certified_drop(
    evidence: Evidence,
    path: Path,
    test: TestKind,
    max_drop: float,
    delta: float,
    *,
    group_by: GroupBy = None,
    unlabelled: bool = False,
) -> CertifiedDrop:
    """Test path[1], path[2], ... by fixed-sequence testing; path[0] has no early exit, so that it is not tested.

    Args:
        evidence: of samples that had no part in making the path, in an order fixed beforehand.
        path: thresholds, safest first.
        test: the p-value: betting for losses in [-1, 1], binomial for losses in {0, 1}.
        max_drop: alpha, the target risk.
        delta: of the test.
        group_by: the groups in each of which it is tested.
        unlabelled: the losses are disagreements.
    """
    known: dict[bytes, float] = {}  # most strata lose at a step what they lost at the step before

    def p_value(differences: Differences) -> float:
        content = hashlib.sha256(differences.data).digest()
        if content not in known:
            known[content] = p_value_of(test, differences, max_drop, delta)
        return known[content]

    def p_values() -> Iterator[float]:
        for thresholds in path[1:]:
            losses = excess_losses(evidence, thresholds)
            groups = (losses[mask] for mask in group_masks(evidence, thresholds, group_by))
            yield intersection_union_p_value(groups, p_value)

    certified, tested = fixed_sequence(p_values(), delta)
    metrics = policy_metrics(evidence, path[certified], unlabelled=unlabelled)
    return CertifiedDrop(
        max_drop=max_drop,
        delta=delta,
        certified=certified,
        p_values=tested,
        shares=metrics.shares,
        disagreement=metrics.disagreement,
    )


def certify(evidence: Evidence, path: Path, settings: recipe.Calibrate, test: TestKind) -> tuple[CertifiedDrop, ...]:
    """Test the path for every drop of the settings, and return the results, smallest drop first.

    Args:
        evidence: of the certification samples.
        path: made without them.
        settings: with a confidence.
        test: see ``kind_of_test``.
    """
    assert settings.confidence is not None
    drops = sorted({settings.max_drop, *settings.extra_drops})
    delta = bonferroni_delta(settings.confidence, len(drops))
    groups, unlabelled = settings.group_by, settings.unlabelled
    return tuple(
        certified_drop(evidence, path, test, drop, delta, group_by=groups, unlabelled=unlabelled) for drop in drops
    )


def policy_metrics(evidence: Evidence, thresholds: tuple[float, ...], *, unlabelled: bool) -> PolicyMetrics:
    """Return the metrics of a policy on the samples that certified it.

    Args:
        evidence: of these samples.
        thresholds: of the policy.
        unlabelled: the metric is not known.
    """
    loss, exit_index = _policy_loss(evidence, thresholds)
    return PolicyMetrics(
        metric=None if unlabelled else metric_of(loss),
        reference_metric=None if unlabelled else metric_of(evidence.reference),
        shares=tuple(float((exit_index == k).mean()) for k in range(len(evidence.loss))),
        disagreement=_disagreement(evidence, exit_index, unlabelled=unlabelled),
    )


def _disagreement(evidence: Evidence, exit_index: Exits, *, unlabelled: bool) -> float | None:
    """Return the mean loss against the last exit's decisions; None if the evidence does not hold it."""
    against_last = evidence.disagreement
    if against_last is None and unlabelled and evidence.reference_loss is None:
        against_last = evidence.loss[:-1]
    if against_last is None:
        return None
    early = np.flatnonzero(exit_index < len(against_last))
    return float(against_last[exit_index[early], early].sum(dtype=np.float64) / len(exit_index))


def conformal_risk_control(losses: Iterable[npt.NDArray[np.floating]], alpha: float) -> int:
    """Return the number of settings of a sequence, safest first, that keep the *expected* loss at or below alpha.

    Angelopoulos et al., "Conformal Risk Control" (arXiv:2208.02814), theorem 1, with losses of at most 1:
    n / (n + 1) R + 1 / (n + 1) <= alpha. The mean is over calibrations too: a single calibration may lose more, and a
    good part of them do. The theorem asks for losses that never fall along the sequence. The largest loss so
    far of each sample replaces its loss, so that they do not.

    Args:
        losses: [N] for each setting, each at most 1, of the same N exchangeable samples; taken one by one.
        alpha: the bound.

    Returns:
        The number of settings that may be used; they are the first of the sequence.
    """
    kept, largest = 0, None
    for loss in losses:
        largest = loss if largest is None else np.maximum(largest, loss)
        if not (largest.sum(dtype=np.float64) + 1) / (len(loss) + 1) <= alpha:  # also NaN stops
            break
        kept += 1
    return kept
