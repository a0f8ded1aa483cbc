"""Certify thresholds: a path made on one part of the samples, tested step by step on another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.evidence import Evidence
from sdcompress.calibration.calibration_split import in_shape
from sdcompress.calibration.fixed_sequence import fixed_sequence
from sdcompress.calibration.groups import Per, in_every_group, members
from sdcompress.calibration.observe import FittedPolicy, fit_policy, observe
from sdcompress.calibration.p_values import betting_p_value, binomial_p_value
from sdcompress.calibration.path import exit_path, threshold_path
from sdcompress.calibration.power_analysis import least_samples
from sdcompress.calibration.reference_model import Against
from sdcompress.calibration.stage_timing import decision_ms, stage_ms
from sdcompress.calibration.thresholds import leave
from sdcompress.data.samples import Samples
from sdcompress.runtime.engine import Engine
from sdcompress.schema import recipe
from sdcompress.schema.manifest import CertifiedDrop

__all__ = [
    "Path",
    "Shape",
    "TestKind",
    "certified_drop",
    "certify",
    "collect",
    "deltas",
    "losses",
    "make_shape",
    "p_value_of",
    "smallest_target",
    "with_labels",
]

Path = tuple[tuple[float, ...], ...]
Progress = Callable[[int, int], None]
TestKind = Literal["betting", "binomial"]


@dataclass(frozen=True)
class Shape:
    """What was decided on the shape part alone.

    Attributes:
        fitted: temperatures and the fitted policy.
        stage_ms: from one exit to the next.
        decision_ms: to judge one image at each exit but the last.
        path: thresholds, safest first.
        evidence: of the shape part itself; nothing of it is certified.
    """

    fitted: FittedPolicy
    stage_ms: tuple[float, ...]
    decision_ms: tuple[float, ...]
    path: Path
    evidence: Evidence


def make_shape(engine: Engine, samples: Samples, settings: recipe.Calibrate, progress: Progress | None = None) -> Shape:
    """Time the stages, fit the policy and make the path.

    Args:
        engine: runs the artifact's graphs.
        samples: the shape part.
        settings: of the calibration.
        progress: called with (images done, all images).
    """
    times = stage_ms(engine, samples)
    fitted, signals, right = fit_policy(engine, samples, settings, times, progress)
    evidence = with_labels(fitted.evidence(signals, right), samples, settings.per)
    path = _path(evidence, times, settings, shared=fitted.policy.shared)
    return Shape(fitted, times, decision_ms(fitted.policy, signals), path, evidence)


def _path(evidence: Evidence, times: tuple[float, ...], settings: recipe.Calibrate, *, shared: bool) -> Path:
    """For a wish about single exits no group may be so small that it could not be certified: twice the least number."""
    right = evidence.right.astype(np.bool_)
    if settings.per != "exit":
        return threshold_path(evidence.confidences, right, times, shared=shared)
    least = in_shape(2 * least_samples(*smallest_target(settings), unlabelled=settings.unlabelled))
    return exit_path(evidence.confidences, right, least)


def with_labels(evidence: Evidence, samples: Samples, per: Per) -> Evidence:
    """The evidence of these samples, with their labels where the bounds shall hold in every class."""
    return replace(evidence, labels=samples.labels.astype(np.int32)) if per == "class" else evidence


def collect(
    engine: Engine,
    samples: Samples,
    fitted: FittedPolicy,
    *,
    unlabelled: bool,
    against: Against | None = None,
    progress: Progress | None = None,
) -> Evidence:
    """Run the samples in their order and keep what the tests need of each.

    Args:
        engine: runs the artifact's graphs.
        samples: the part that certifies, in the order of the tests.
        fitted: fixed before.
        unlabelled: compare with the answers of the last exit, or of ``against``, instead of the labels.
        against: another network; it runs after this one.
        progress: called with (images done, all images), twice as many where there is another network.
    """
    first, second = _halves(progress) if against else (progress, None)
    signals, right = observe(engine, samples, fitted.temperatures, unlabelled=unlabelled, progress=first)
    if against is None:
        return fitted.evidence(signals, right)
    answers = against.answers(samples, labelled=not unlabelled, progress=second)
    if unlabelled:
        right = np.stack([exit_.answer == answers for exit_ in signals])
    truth = answers if unlabelled else samples.labels
    return replace(fitted.evidence(signals, right), against=(answers == truth).astype(np.uint8))


def _halves(progress: Progress | None) -> tuple[Progress | None, Progress | None]:
    if progress is None:
        return None, None
    return (lambda done, all_: progress(done, 2 * all_)), (lambda done, all_: progress(all_ + done, 2 * all_))


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
