"""Choose thresholds with a guarantee: tune a path on one part of the samples, and test it on the other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sdcompress.artifact.evidence import EVIDENCE, Evidence
from sdcompress.artifact.execution_target import ExecutionTarget, graphs_digest, wiring_digest
from sdcompress.artifact.write import entry
from sdcompress.calibration.exit_choice import faster_form
from sdcompress.calibration.reference_model import ReferenceModel, warn_of_weaker_reference
from sdcompress.calibration.stage_timing import call_times, stage_times
from sdcompress.calibration.tuning import Tuning, collect, tune, with_strata
from sdcompress.certification.calibration_split import CalibrationSplit, draw_split, seed_of
from sdcompress.certification.certify import (
    certify,
    conformal_risk_control,
    excess_losses,
    kind_of_test,
    policy_metrics,
)
from sdcompress.certification.groups import warn_of_strata
from sdcompress.data.samples import Samples, Subset
from sdcompress.data.unlabelled import UnlabelledFolder
from sdcompress.errors import UsageError
from sdcompress.policies import exit_index_of
from sdcompress.progress import Progress, subprogress
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.schema import recipe
from sdcompress.schema.manifest import Certificate, CertifiedDrop, Manifest, Policy, StageTimes

__all__ = ["certified_policy", "policy_in_expectation", "split_of"]

Guarantee = Literal["certified", "no certificate", "in expectation"]


@dataclass(frozen=True)
class _SplitRun:
    """The tuning on the tuning samples, and the evidence of the certification samples.

    Attributes:
        fingerprint: of the data.
        tuning: made on the tuning samples.
        evidence: of the certification samples, which were run after the tuning.
        samples: the certification samples, in the same order.
        stage_times: of the stages in batches.
        execution_target: backend, device and engine plans that ran the samples.
    """

    fingerprint: str
    tuning: Tuning
    evidence: Evidence
    samples: Samples
    stage_times: StageTimes
    execution_target: ExecutionTarget


def split_of(manifest: Manifest, samples: Samples) -> tuple[CalibrationSplit, str]:
    """Return the split of calibration samples, and the fingerprint of their data, which decides it with the graphs."""
    fingerprint = manifest.provenance.data_fingerprint
    if isinstance(samples, UnlabelledFolder):
        fingerprint = samples.fingerprint
    return draw_split(len(samples), seed_of(fingerprint, graphs_digest(manifest))), fingerprint


def _tune_and_collect(
    manifest: Manifest,
    engine: CascadeEngine,
    samples: Samples,
    settings: recipe.Calibrate,
    progress: Progress | None,
    *,
    reference: ReferenceModel | None = None,
) -> _SplitRun:
    """Tune a path on the tuning samples, then collect evidence on the certification samples."""
    split, fingerprint = split_of(manifest, samples)
    total = len(split.tuning) + (2 if reference else 1) * len(split.certify)
    tuning = tune(engine, Subset(samples, split.tuning), settings, subprogress(progress, 0, total))
    if reference:
        # path[0] is not tested. A copy is, because the last exit itself may lose against an external reference
        tuning = replace(tuning, path=(tuning.path[0], *tuning.path))
    certification_samples = Subset(samples, split.certify)
    evidence = collect(
        engine,
        certification_samples,
        tuning.fitted,
        unlabelled=settings.unlabelled,
        reference=reference,
        progress=subprogress(progress, len(split.tuning), total),
    )
    evidence = with_strata(evidence, engine.task, certification_samples, settings)
    times = stage_times(engine, manifest, samples)
    return _SplitRun(fingerprint, tuning, evidence, certification_samples, times, engine.execution_target)


def certified_policy(
    manifest: Manifest,
    engine: CascadeEngine,
    samples: Samples,
    settings: recipe.Calibrate,
    folder: Path,
    *,
    split: str,
    reference: ReferenceModel | None,
    joint_confidence: float | None,
    progress: Progress | None,
) -> tuple[tuple[float, ...], Policy, Certificate]:
    """Return temperatures, a policy and its certificate, and write the evidence.

    Early exit is disabled if nothing is certified.

    Args:
        manifest: of the artifact that is calibrated.
        engine: opened from it.
        samples: N samples that training has not seen.
        settings: with a confidence.
        folder: of the new artifact, which gets the evidence.
        split: name of the samples' split.
        reference: from which losses are counted; None: the last exit.
        joint_confidence: that the certificate states, if it is one of several; None: that of the settings.
        progress: called with (samples done, all samples).

    Raises:
        UsageError: if no certified thresholds keep the budget of the settings.
        VerificationError: if an output is not finite.
    """
    assert settings.confidence is not None
    run = _tune_and_collect(manifest, engine, samples, settings, progress, reference=reference)
    tuning, evidence = run.tuning, run.evidence
    if reference and not settings.unlabelled:
        warn_of_weaker_reference(evidence, engine.task, settings.max_drop)
    test = kind_of_test(unlabelled=settings.unlabelled, binary_loss=engine.task.binary_loss)
    levels = certify(evidence, tuning.path, settings, test)
    tested = max(len(level.p_values) for level in levels)
    level = next(level for level in levels if level.max_drop == settings.max_drop)
    policy = _within_budget(run, level, settings, split, engine)
    _warn_of_strata(run, policy, settings, engine)
    replace(evidence, tuning_scores=tuning.evidence.scores).save(folder / EVIDENCE)
    certificate = Certificate(
        confidence=settings.confidence if joint_confidence is None else min(joint_confidence, settings.confidence),
        loss="disagreement" if settings.unlabelled else "drop",
        test=test,
        group_by=settings.group_by,
        reference=reference and reference.digest,
        levels=levels,
        path=tuning.path[: tested + 1],  # nothing is known of steps without a test
        temperatures=tuning.fitted.temperatures,
        policy=settings.policy,
        parameters=tuning.fitted.policy.parameters,
        graphs=graphs_digest(manifest),
        interface=wiring_digest(manifest),
        backend=run.execution_target.backend,
        device=run.execution_target.device,
        plans=run.execution_target.plans,
        precision=tuple(segment.precision for segment in manifest.segments),
        data_fingerprint=run.fingerprint,
        external=_external(samples),
        seed=seed_of(run.fingerprint, graphs_digest(manifest)),
        tuning_samples=len(tuning.evidence),
        certify_samples=len(evidence),
        evidence=entry(folder, EVIDENCE),
    )
    return tuning.fitted.temperatures, policy, certificate


def policy_in_expectation(
    manifest: Manifest,
    engine: CascadeEngine,
    samples: Samples,
    settings: recipe.Calibrate,
    *,
    split: str,
    progress: Progress | None,
) -> tuple[tuple[float, ...], Policy]:
    """Return temperatures and a policy by conformal risk control: the mean drop over calibrations keeps the target.

    Split and path are those of a certificate, because the certification samples must be exchangeable with new samples.
    A single calibration may lose more, so that the policy is not called certified and no evidence is kept.

    Args:
        manifest: of the artifact that is calibrated.
        engine: opened from it.
        samples: N samples that training has not seen.
        settings: with ``in_expectation``.
        split: name of the samples' split.
        progress: called with (samples done, all samples).

    Raises:
        VerificationError: if an output is not finite.
    """
    run = _tune_and_collect(manifest, engine, samples, settings, progress)
    losses = (excess_losses(run.evidence, thresholds) for thresholds in run.tuning.path)
    step = max(conformal_risk_control(losses, settings.max_drop) - 1, 0)  # path[0] loses nothing
    policy = _faster_form(step, run, settings, split, "in expectation", engine=engine)
    _warn_of_strata(run, policy, settings, engine)
    return run.tuning.fitted.temperatures, policy


def _warn_of_strata(run: _SplitRun, policy: Policy, settings: recipe.Calibrate, engine: CascadeEngine) -> None:
    if settings.group_by == "stratum" or settings.unlabelled:
        return  # the drop holds in every stratum, or targets are not used
    strata = engine.task.strata(run.samples.targets)
    warn_of_strata(run.evidence, strata, policy.thresholds, task=engine.task, max_drop=settings.max_drop)


def _external(samples: Samples) -> Literal["disjoint", "not compared"] | None:
    if not isinstance(samples, UnlabelledFolder):
        return None
    return "disjoint" if samples.apart else "not compared"


def _at(step: int, run: _SplitRun, settings: recipe.Calibrate, split: str, guarantee: Guarantee) -> Policy:
    """Return the policy at a step of the path."""
    tuning, evidence = run.tuning, run.evidence
    return Policy(
        name=settings.policy,
        parameters=tuning.fitted.policy.parameters,
        thresholds=tuning.path[step],
        max_drop=settings.max_drop,
        guarantee=guarantee,
        split=split,
        samples=len(evidence),
        stage_ms=tuning.stage_ms,
        decision_ms=tuning.decision_ms,
        stage_times=run.stage_times,
        **run.execution_target._asdict(),
        **policy_metrics(evidence, tuning.path[step], unlabelled=settings.unlabelled)._asdict(),
    )


def _faster_form(
    step: int,
    run: _SplitRun,
    settings: recipe.Calibrate,
    split: str,
    guarantee: Guarantee,
    *,
    engine: CascadeEngine,
) -> Policy:
    """Return the policy at a step with the measured times of its calls, or no early exit where that is faster.

    Every step of the path before a certified one keeps the bound, and the first is no early exit.
    """
    policy, temperatures = _at(step, run, settings, split, guarantee), run.tuning.fitted.temperatures
    exits = exit_index_of(run.evidence.scores, policy.thresholds)
    policy = policy.model_copy(update=call_times(engine, run.samples, policy, temperatures, exits)._asdict())
    without_exits = _at(0, run, settings, split, guarantee)
    return faster_form(policy, without_exits, engine, run.samples, temperatures, exit_index=exits, settings=settings)


def _within_budget(
    run: _SplitRun,
    level: CertifiedDrop,
    settings: recipe.Calibrate,
    split: str,
    engine: CascadeEngine,
) -> Policy:
    """Return the policy at the last certified step, or at the first certified step that keeps the budget.

    Raises:
        UsageError: if no certified step keeps the budget.
    """
    guarantee: Guarantee = "certified" if level.certified else "no certificate"
    fastest = _faster_form(level.certified, run, settings, split, guarantee, engine=engine)
    budget = settings.budget_ms
    if budget is None or not level.certified:
        return fastest
    # every step up to the last certified one keeps the bound, so that the choice among them needs no further test
    steps = range(level.certified + 1) if fastest.rejected_ms is None else ()
    policies = [_timed_like(fastest, _at(step, run, settings, split, guarantee)) for step in steps] or [fastest]
    for policy in policies:
        if policy.mean_ms <= budget:
            return policy
    least_ms = min(policy.mean_ms for policy in policies)
    raise UsageError(
        f"No thresholds that are certified for a drop of {settings.max_drop:.2%} take {budget:g} ms on average.",
        allowed=f"{least_ms:.3g} ms or more; without early exit it is {policies[0].mean_ms:.3g} ms",
        next_step="raise --budget or --max-drop, or calibrate on more samples",
    )


def _timed_like(fastest: Policy, policy: Policy) -> Policy:
    """Return a policy of the same path with the times that were measured for the fastest one.

    Without early exit no head is computed. So it takes the time of the whole network, and not that of the samples that
    pass all exits of the fastest policy.
    """
    if fastest.whole_ms is not None and not policy.exits_early:
        overhead = fastest.whole_ms / policy.reach_ms[-1]
        return policy.model_copy(update={"whole_ms": fastest.whole_ms, "overhead": overhead})
    return policy.model_copy(update=fastest.model_dump(include={"overhead", "exit_ms", "whole_ms"}))
