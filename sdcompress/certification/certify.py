"""Certify thresholds: a path of them, made on other samples, is tested step by step."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.evidence import Evidence
from sdcompress.certification.fixed_sequence import fixed_sequence
from sdcompress.certification.groups import Per, in_every_group, members
from sdcompress.certification.p_values import betting_p_value, binomial_p_value
from sdcompress.policies import leave
from sdcompress.schema import recipe
from sdcompress.schema.manifest import CertifiedDrop

__all__ = [
    "Path",
    "TestKind",
    "certified_drop",
    "certify",
    "deltas",
    "figures",
    "losses",
    "p_value_of",
    "smallest_target",
]

Path = tuple[tuple[float, ...], ...]
TestKind = Literal["betting", "binomial"]


def losses(evidence: Evidence, thresholds: tuple[float, ...]) -> npt.NDArray[np.int8]:
    """What each sample loses under the thresholds, int8 [N]: 1 if only the reference is right, -1 if only its exit is.

    The reference is the last exit, or another network. Their mean is the drop in accuracy. Where right means "says what
    the reference says" they are 0 or 1, and their mean is the disagreement, which the drop cannot exceed.
    """
    left = leave(evidence.confidences, thresholds)
    right = evidence.right.astype(np.int8)
    lost: npt.NDArray[np.int8] = evidence.reference.astype(np.int8) - right[left, np.arange(len(left))]
    return lost


def deltas(confidence: float, wishes: int) -> float:
    """The probability of an error that each of several wishes may use up: (1 - confidence) / wishes (Bonferroni)."""
    return float((1 - Fraction(str(confidence))) / wishes)


def smallest_target(settings: recipe.Calibrate) -> tuple[float, float]:
    """The smallest drop that is asked for, and the delta of each test; needs a confidence."""
    assert settings.confidence is not None
    drops = {settings.max_drop, *settings.ladder}
    return min(drops), deltas(settings.confidence, len(drops))


def p_value_of(test: TestKind, found: npt.NDArray[np.int8], alpha: float, delta: float) -> float:
    """The p-value of "the mean of these losses is above alpha"; delta sizes the bets of the betting test."""
    if test == "betting":
        return betting_p_value(found, alpha, delta)
    return binomial_p_value(int(found.sum()), len(found), alpha)


def certified_drop(
    evidence: Evidence, path: Path, test: TestKind, max_drop: float, delta: float, *, per: Per = None
) -> CertifiedDrop:
    """Fixed-sequence testing of path[1], path[2], ...; at path[0] nobody leaves, so nothing is lost to the last exit.

    Args:
        evidence: of samples that had no part in making the path, in an order fixed beforehand.
        path: thresholds, safest first.
        test: the p-value: betting for losses in {-1, 0, 1}, binomial for losses in {0, 1}.
        max_drop: alpha.
        delta: of the test.
        per: the groups in each of which it is tested.
    """

    @lru_cache(maxsize=4096)  # most classes lose at a step what they lost at the step before
    def known(content: bytes) -> float:
        return p_value_of(test, np.frombuffer(content, np.int8), max_drop, delta)

    def p_value(found: npt.NDArray[np.int8]) -> float:
        return known(found.tobytes())

    def p_values() -> Iterator[float]:
        for thresholds in path[1:]:
            yield in_every_group(losses(evidence, thresholds), members(evidence, thresholds, per), p_value)

    tested = fixed_sequence(p_values(), delta)
    return CertifiedDrop(max_drop=max_drop, delta=delta, certified=tested.rejected, p_values=tested.p_values)


def certify(evidence: Evidence, path: Path, settings: recipe.Calibrate) -> tuple[CertifiedDrop, ...]:
    """Test the path for every wish of the settings; smallest drop first.

    Args:
        evidence: of the part that certifies.
        path: made without it.
        settings: with a confidence.
    """
    assert settings.confidence is not None
    drops = sorted({settings.max_drop, *settings.ladder})
    delta = deltas(settings.confidence, len(drops))
    test: TestKind = "binomial" if settings.unlabelled else "betting"
    return tuple(certified_drop(evidence, path, test, drop, delta, per=settings.per) for drop in drops)


def figures(evidence: Evidence, thresholds: tuple[float, ...], *, unlabelled: bool) -> dict[str, Any]:
    """What a policy says of the samples that certified it: ``shares``, ``score`` and ``reference_score``.

    Args:
        evidence: of these samples.
        thresholds: of the policy.
        unlabelled: the accuracies are not known.
    """
    left = leave(evidence.confidences, thresholds)
    right = evidence.right.astype(np.bool_)
    return {
        "score": None if unlabelled else float(right[left, np.arange(len(left))].mean()),
        "reference_score": None if unlabelled else float(evidence.reference.astype(np.bool_).mean()),
        "shares": tuple(float((left == exit_).mean()) for exit_ in range(len(right))),
    }
