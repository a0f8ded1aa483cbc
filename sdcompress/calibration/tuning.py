"""Fit policy, temperatures and path on the tuning samples, and collect evidence of the certification samples."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sdcompress.artifact.evidence import Evidence
from sdcompress.calibration.exit_choice import kept_exits
from sdcompress.calibration.policy_fitting import FittedPolicy, fit_policy
from sdcompress.calibration.reference_model import ReferenceModel
from sdcompress.calibration.stage_timing import decision_ms, stage_ms
from sdcompress.calibration.threshold_path import exit_path, threshold_path
from sdcompress.certification.calibration_split import tuning_count_for
from sdcompress.certification.certify import Path, kind_of_test, smallest_drop
from sdcompress.certification.groups import strata_of
from sdcompress.certification.power_analysis import least_samples
from sdcompress.data.samples import Samples
from sdcompress.evaluation.exit_outcomes import exit_outcomes, last_decisions
from sdcompress.progress import Progress, subprogress
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.engine import Engine
from sdcompress.schema import recipe
from sdcompress.tasks import Task

__all__ = ["Tuning", "collect", "tune", "with_strata"]


@dataclass(frozen=True)
class Tuning:
    """Policy and path, made on the tuning samples alone.

    Attributes:
        fitted: temperatures and the fitted policy.
        stage_ms: [E], from one exit to the next.
        decision_ms: [E-1], of one decision at each exit but the last.
        path: thresholds of every exit but the last, safest first; exits that do not pay are never taken.
        evidence: of the tuning samples; it certifies nothing.
    """

    fitted: FittedPolicy
    stage_ms: tuple[float, ...]
    decision_ms: tuple[float, ...]
    path: Path
    evidence: Evidence


def tune(
    engine: CascadeEngine, samples: Samples, settings: recipe.Calibrate, progress: Progress | None = None
) -> Tuning:
    """Measure the stage times, fit the policy, choose the exits that pay and make the path.

    Args:
        engine: runs the artifact's graphs.
        samples: the tuning samples.
        settings: of the calibration.
        progress: called with (samples done, all samples).
    """
    times = stage_ms(engine, samples)
    fitted, signals, loss = fit_policy(engine, samples, settings, times, progress)
    evidence = with_strata(fitted.evidence(signals, loss), engine.task, samples, settings)
    decisions = decision_ms(fitted.policy, signals)
    kept = kept_exits(
        engine, samples, evidence, fitted.policy, settings=settings, stage_ms=times, decision_ms=decisions
    )
    path = _path(kept.of(evidence), kept.stage_ms, settings, engine.task, shared=fitted.policy.shared)
    return Tuning(fitted, times, decisions, kept.widened(path), evidence)


def _path(
    evidence: Evidence, times: tuple[float, ...], settings: recipe.Calibrate, task: Task, *, shared: bool
) -> Path:
    """Return the path; for drops per exit, every group gets twice the least number of samples to certify."""
    if settings.group_by != "exit":
        return threshold_path(evidence.scores, evidence.loss, times, shared=shared)
    exact = kind_of_test(unlabelled=settings.unlabelled, binary_loss=task.binary_loss) == "binomial"
    return exit_path(
        evidence.scores, evidence.loss, tuning_count_for(2 * least_samples(*smallest_drop(settings), exact=exact))
    )


def with_strata(evidence: Evidence, task: Task, samples: Samples, settings: recipe.Calibrate) -> Evidence:
    """Return the evidence of these samples, with their strata if the drop shall hold in each."""
    if settings.group_by != "stratum":
        return evidence
    return replace(evidence, strata=strata_of(task, samples.targets).astype(np.int32))


def collect(
    engine: Engine,
    samples: Samples,
    fitted: FittedPolicy,
    *,
    unlabelled: bool,
    reference: ReferenceModel | None = None,
    progress: Progress | None = None,
) -> Evidence:
    """Run the certification samples and return the scores and losses that the tests need.

    Args:
        engine: runs the artifact's graphs.
        samples: the certification samples, in the order of the tests.
        fitted: temperatures and policy.
        unlabelled: take losses against the decisions of the last exit, or of ``reference``, instead of the targets.
        reference: another network; it runs before this one.
        progress: called with (samples done, all samples); with a reference every sample counts twice.
    """
    count, total = len(samples), len(samples) * (2 if reference else 1)
    decisions = None
    if reference is not None:
        of_reference = subprogress(progress, 0, total)
        decisions = last_decisions(reference.engine, samples, labelled=not unlabelled, progress=of_reference)
    outcomes = exit_outcomes(
        engine,
        samples,
        fitted.temperatures,
        unlabelled=unlabelled,
        reference=decisions,
        progress=subprogress(progress, total - count, total),
    )
    evidence = fitted.evidence(outcomes.signals, outcomes.loss)
    if unlabelled and decisions is None:
        return evidence
    evidence = replace(evidence, disagreement=outcomes.disagreement)
    if decisions is None:
        return evidence
    targets = decisions if unlabelled else samples.targets
    return replace(evidence, reference_loss=engine.task.loss(decisions, targets))
