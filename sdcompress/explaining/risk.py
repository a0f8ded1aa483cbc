"""Empirical risk and upper bound at each step of the path of a certificate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.evidence import Evidence
from sdcompress.certification.certify import excess_losses, p_value_of
from sdcompress.certification.groups import group_masks, group_name, intersection_union_p_value, loss_name
from sdcompress.policies import exit_index_of
from sdcompress.schema.explain import Risk, RiskStep
from sdcompress.schema.manifest import Certificate, Policy
from sdcompress.tasks import Task

__all__ = ["risk", "upper_bound"]

_HALVINGS = 24  # to 6e-8, far below one sample


def risk(certificate: Certificate, policy: Policy, evidence: Evidence, reach_ms: npt.ArrayLike, task: Task) -> Risk:
    """Return loss, bound and time of the steps that were tested for the target risk of a policy.

    Args:
        certificate: of the artifact.
        policy: names the target risk and the step in use.
        evidence: of the tested samples.
        reach_ms: [E], ms up to each exit, as measured here.
        task: of the artifact.
    """
    level = next(level for level in certificate.levels if level.max_drop == policy.max_drop)
    costs = np.asarray(reach_ms, np.float64)
    first_is_lossless = certificate.reference is None  # step 0 has no early exit

    def at(step: int) -> RiskStep:
        thresholds = certificate.path[step]
        losses = excess_losses(evidence, thresholds)
        groups = [losses[mask] for mask in group_masks(evidence, thresholds, certificate.group_by)]

        def p_value(alpha: float) -> float:
            return intersection_union_p_value(
                groups, lambda group: p_value_of(certificate.test, group, alpha, level.delta)
            )

        return RiskStep(
            step=step,
            thresholds=thresholds,
            loss=max(float(group.mean()) for group in groups if len(group)),
            bound=0.0 if first_is_lossless and step == 0 else upper_bound(p_value, level.delta),
            mean_ms=float(costs[exit_index_of(evidence.scores, thresholds)].mean()),
        )

    return Risk(
        loss=loss_name(certificate.loss, task),
        test=certificate.test,
        max_drop=level.max_drop,
        delta=level.delta,
        group_by=group_name(certificate.group_by, task),
        reference=certificate.reference,
        samples=certificate.certify_samples,
        certified=level.certified,
        # the later of two equal steps: against another network the first one is not tested
        chosen=max((k for k in range(level.certified + 1) if certificate.path[k] == policy.thresholds), default=0),
        steps=tuple(at(step) for step in range(len(level.p_values) + 1)),
    )


def upper_bound(p_value: Callable[[float], float], delta: float) -> float:
    """Return the largest mean loss that is not rejected at delta: an upper bound of confidence 1 - delta, in [0, 1].

    The bound inverts the test: bisection finds the alpha at which it starts to reject. The p-value of the exact test
    falls with alpha. The betting test sizes its bets by alpha, so that its p-value may fluctuate near that alpha. The
    certificate therefore rests on the test at the target risk, not on this bound.

    Args:
        p_value: of the hypothesis "the mean loss is above alpha", as a function of alpha.
        delta: level of the test.
    """
    low, high = 0.0, 1.0
    if p_value(high) > delta:
        return high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(middle) > delta else (low, middle)
    return high
