"""What is decided on the tuning part of the samples, before the other part is looked at."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sdcompress.artifact.evidence import Evidence
from sdcompress.calibration.observe import FittedPolicy, fit_policy, observe
from sdcompress.calibration.path import exit_path, threshold_path
from sdcompress.calibration.reference_model import Against
from sdcompress.calibration.stage_timing import decision_ms, stage_ms
from sdcompress.certification.calibration_split import in_shape
from sdcompress.certification.certify import Path, smallest_target
from sdcompress.certification.groups import Per
from sdcompress.certification.power_analysis import least_samples
from sdcompress.data.samples import Samples
from sdcompress.progress import Progress, part
from sdcompress.runtime.engine import Engine
from sdcompress.schema import recipe

__all__ = ["Shape", "collect", "make_shape", "with_labels"]


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
    return replace(evidence, labels=samples.targets.astype(np.int32)) if per == "class" else evidence


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
    count, total = len(samples), len(samples) * (2 if against else 1)
    mine = part(progress, 0, total)
    signals, right = observe(engine, samples, fitted.temperatures, unlabelled=unlabelled, progress=mine)
    if against is None:
        return fitted.evidence(signals, right)
    answers = against.answers(samples, labelled=not unlabelled, progress=part(progress, count, total))
    if unlabelled:
        right = np.stack([exit_.decision == answers for exit_ in signals])
    truth = answers if unlabelled else samples.targets
    return replace(fitted.evidence(signals, right), against=(answers == truth).astype(np.uint8))
