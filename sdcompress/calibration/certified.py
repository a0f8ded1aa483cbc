"""Calibrate a cascade with a certificate, or record that none was possible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from sdcompress.artifact.certificate import ExecutionTarget, graphs_digest, wiring_digest
from sdcompress.artifact.evidence import EVIDENCE, Evidence
from sdcompress.artifact.write import entry
from sdcompress.calibration.reference_model import ReferenceModel
from sdcompress.calibration.stage_timing import overhead, stage_times
from sdcompress.calibration.tuning import Tuning, collect, tune, with_strata
from sdcompress.certification.calibration_split import draw_split, seed_of
from sdcompress.certification.certify import certify, kind_of_test, losses, policy_metrics
from sdcompress.certification.fixed_sequence import conformal_risk_control
from sdcompress.certification.groups import warn_of_strata
from sdcompress.data.samples import Samples, Subset
from sdcompress.data.unlabelled import UnlabelledFolder
from sdcompress.errors import UsageError
from sdcompress.progress import Progress, subprogress
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.schema import recipe
from sdcompress.schema.manifest import Certificate, CertifiedDrop, Manifest, Policy, StageTimes
from sdcompress.tasks import Array

__all__ = ["CertifiedPolicy", "SplitRun", "certified_policy", "fingerprint_of", "in_expectation", "tune_and_collect"]

Guarantee = Literal["certified", "no certificate", "in expectation"]


@dataclass(frozen=True)
class CertifiedPolicy:
    """What a certified calibration gives.

    Attributes:
        temperatures: of every exit.
        policy: with certified thresholds, or with some that never fire.
        certificate: its evidence is written already.
    """

    temperatures: tuple[float, ...]
    policy: Policy
    certificate: Certificate


@dataclass(frozen=True)
class SplitRun:
    """What the two parts of the calibration samples gave: the tuning and the evidence.

    Attributes:
        fingerprint: of the data.
        seed: that drew the parts, from the fingerprint and the graphs.
        tuning: what the first part decided.
        evidence: of the second part, which was only run when that was fixed.
        targets: of the second part, in the same order.
        stage_times: of the stages in batches.
        target: what ran them.
    """

    fingerprint: str
    seed: str
    tuning: Tuning
    evidence: Evidence
    targets: Array
    stage_times: StageTimes
    target: ExecutionTarget


def fingerprint_of(manifest: Manifest, samples: Samples) -> str:
    """Return the fingerprint of a user's samples, else of the artifact's data set."""
    return samples.fingerprint if isinstance(samples, UnlabelledFolder) else manifest.provenance.data_fingerprint


def tune_and_collect(
    manifest: Manifest,
    engine: CascadeEngine,
    samples: Samples,
    settings: recipe.Calibrate,
    progress: Progress | None = None,
    *,
    reference: ReferenceModel | None = None,
) -> SplitRun:
    """Tune a path on one part of the samples, then collect evidence on the other.

    Args:
        manifest: of the artifact that is calibrated.
        engine: opened from it.
        samples: N of them, which training has not seen.
        settings: of the calibration.
        progress: called with (samples done, all samples).
        reference: what losses are counted from; None: the last exit.

    Raises:
        VerificationError: if an output is not finite.
    """
    fingerprint = fingerprint_of(manifest, samples)
    seed = seed_of(fingerprint, graphs_digest(manifest))
    parts = draw_split(len(samples), seed)
    total = len(parts.tuning) + (2 if reference else 1) * len(parts.certify)
    tuning = tune(engine, Subset(samples, parts.tuning), settings, subprogress(progress, 0, total))
    if reference:  # without any early exit something may be lost too: a step that is tested, as path[0] never is
        tuning = replace(tuning, path=(tuning.path[0], *tuning.path))
    certification_samples = Subset(samples, parts.certify)
    evidence = collect(
        engine,
        certification_samples,
        tuning.fitted,
        unlabelled=settings.unlabelled,
        reference=reference,
        progress=subprogress(progress, len(parts.tuning), total),
    )
    evidence = with_strata(evidence, engine.task, certification_samples, settings)
    times = stage_times(engine, manifest, samples)
    return SplitRun(fingerprint, seed, tuning, evidence, certification_samples.targets, times, engine.execution_target)


def certified_policy(
    manifest: Manifest,
    engine: CascadeEngine,
    samples: Samples,
    settings: recipe.Calibrate,
    folder: Path,
    *,
    split: str,
    reference: ReferenceModel | None = None,
    progress: Progress | None = None,
) -> CertifiedPolicy:
    """Make a path on one part of the samples and test it on the other, which is only run when the path is fixed.

    Args:
        manifest: of the artifact that is calibrated.
        engine: opened from it.
        samples: N of them, which training has not seen.
        settings: with a confidence.
        folder: of the new artifact, which gets the evidence.
        split: what the samples are.
        reference: what losses are counted from; None: the last exit.
        progress: called with (samples done, all samples).

    Raises:
        UsageError: if no certified thresholds keep the budget of the settings.
        VerificationError: if an output is not finite.
    """
    assert settings.confidence is not None
    parts = tune_and_collect(manifest, engine, samples, settings, progress, reference=reference)
    tuning, evidence = parts.tuning, parts.evidence
    test = kind_of_test(unlabelled=settings.unlabelled, binary_loss=engine.task.binary_loss)
    levels = certify(evidence, tuning.path, settings, test)
    tested = max(len(level.p_values) for level in levels)
    level = next(level for level in levels if level.max_drop == settings.max_drop)
    policy = _policy(parts, level, settings, split, cost=_cost(engine, samples, parts))
    _warn_of_strata(parts, policy, settings, engine)
    replace(evidence, tuning_scores=tuning.evidence.scores).save(folder / EVIDENCE)
    certificate = Certificate(
        confidence=settings.confidence,
        loss="disagreement" if settings.unlabelled else "drop",
        test=test,
        group_by=settings.group_by,
        reference=reference and reference.digest,
        levels=levels,
        path=tuning.path[: tested + 1],  # what was not tested says nothing
        temperatures=tuning.fitted.temperatures,
        policy=settings.policy,
        parameters=tuning.fitted.policy.parameters,
        graphs=graphs_digest(manifest),
        interface=wiring_digest(manifest),
        backend=parts.target.backend,
        device=parts.target.device,
        plans=parts.target.plans,
        precision=tuple(segment.precision for segment in manifest.segments),
        data_fingerprint=parts.fingerprint,
        external=_external(samples),
        seed=parts.seed,
        tuning_samples=len(tuning.evidence),
        certify_samples=len(evidence),
        evidence=entry(folder, EVIDENCE),
    )
    return CertifiedPolicy(tuning.fitted.temperatures, policy, certificate)


def in_expectation(
    manifest: Manifest,
    engine: CascadeEngine,
    samples: Samples,
    settings: recipe.Calibrate,
    *,
    split: str,
    progress: Progress | None = None,
) -> tuple[tuple[float, ...], Policy]:
    """Temperatures and a policy by conformal risk control: the mean drop over calibrations is within the target.

    On the same parts and path as a certificate, as what chose nothing must be exchangeable with new samples. Single
    calibrations may lose more, so that it is never called certified and nothing is kept to verify.

    Args:
        manifest: of the artifact that is calibrated.
        engine: opened from it.
        samples: N of them, which training has not seen.
        settings: with ``in_expectation``.
        split: what the samples are.
        progress: called with (samples done, all samples).

    Raises:
        VerificationError: if an output is not finite.
    """
    parts = tune_and_collect(manifest, engine, samples, settings, progress)
    lost = np.stack([losses(parts.evidence, step) for step in parts.tuning.path])
    step = conformal_risk_control(lost, settings.max_drop) - 1  # path[0] loses nothing: it is always among them
    policy = _at(max(step, 0), parts, settings, split, "in expectation")
    _warn_of_strata(parts, policy, settings, engine)
    return parts.tuning.fitted.temperatures, _cost(engine, samples, parts)(policy)


def _warn_of_strata(parts: SplitRun, policy: Policy, settings: recipe.Calibrate, engine: CascadeEngine) -> None:
    if settings.group_by == "stratum" or settings.unlabelled:
        return  # it is kept in every stratum, or no target is looked at
    strata = engine.task.strata(parts.targets)
    warn_of_strata(parts.evidence, strata, policy.thresholds, task=engine.task, max_drop=settings.max_drop)


def _external(samples: Samples) -> Literal["disjoint", "not compared"] | None:
    if not isinstance(samples, UnlabelledFolder):
        return None
    return "disjoint" if samples.apart else "not compared"


def _at(step: int, parts: SplitRun, settings: recipe.Calibrate, split: str, guarantee: Guarantee) -> Policy:
    """Return the policy at a step of the path."""
    tuning, evidence = parts.tuning, parts.evidence
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
        stage_times=parts.stage_times,
        **parts.target._asdict(),
        **policy_metrics(evidence, tuning.path[step], unlabelled=settings.unlabelled)._asdict(),
    )


def _cost(engine: CascadeEngine, samples: Samples, parts: SplitRun) -> Callable[[Policy], Policy]:
    """Measures what a policy takes beyond its stages, and writes it into it."""

    def measured(policy: Policy) -> Policy:
        factor = overhead(engine, samples, policy, parts.tuning.fitted.temperatures)
        return policy.model_copy(update={"overhead": factor})

    return measured


def _policy(
    parts: SplitRun, level: CertifiedDrop, settings: recipe.Calibrate, split: str, *, cost: Callable[[Policy], Policy]
) -> Policy:
    guarantee: Guarantee = "certified" if level.certified else "no certificate"
    fastest = cost(_at(level.certified, parts, settings, split, guarantee))
    budget = settings.budget_ms

    def at(step: int) -> Policy:
        policy = _at(step, parts, settings, split, guarantee)
        return policy.model_copy(update={"overhead": fastest.overhead})

    if budget is None or not level.certified:
        return fastest
    if fastest.mean_ms > budget:
        raise UsageError(
            f"No thresholds that are certified for a drop of {settings.max_drop:.2%} take {budget:g} ms on average.",
            allowed=f"{fastest.mean_ms:.3g} ms or more; without early exit it is {at(0).mean_ms:.3g} ms",
            next_step="raise --budget or --max-drop, or calibrate on more samples",
        )
    # every step up to the last certified one keeps the bound: which of them is taken needs no further test
    return next(policy for step in range(level.certified + 1) if (policy := at(step)).mean_ms <= budget)
