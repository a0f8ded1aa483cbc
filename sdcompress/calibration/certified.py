"""The policy of a cascade with a certificate, or with the record that none was found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.certificate import ExecutionTarget, graphs_digest, wiring_digest
from sdcompress.artifact.evidence import Evidence
from sdcompress.calibration.reference_model import Against
from sdcompress.calibration.stage_timing import overhead, stage_times
from sdcompress.calibration.tuning import Shape, collect, make_shape, with_labels
from sdcompress.certification.calibration_split import draw_parts, seed_of
from sdcompress.certification.certify import certify, figures, losses
from sdcompress.certification.fixed_sequence import conformal_risk_control
from sdcompress.certification.groups import warn_of_classes
from sdcompress.data.samples import Samples, Subset
from sdcompress.data.unlabelled import UnlabelledFolder
from sdcompress.errors import UsageError
from sdcompress.progress import Progress, part
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.schema import recipe
from sdcompress.schema.manifest import CertifiedDrop, Manifest, Policy, StageTimes

__all__ = ["Certified", "Drawn", "certified", "draw", "fingerprint_of", "in_expectation"]

Guarantee = Literal["certified", "no certificate", "in expectation"]


@dataclass(frozen=True)
class Certified:
    """What a certified calibration gives.

    Attributes:
        temperatures: of every exit.
        policy: with certified thresholds, or with some that never fire.
        certificate: every field of ``Certificate`` but ``evidence``.
        evidence: from which the tests can be made again.
    """

    temperatures: tuple[float, ...]
    policy: Policy
    certificate: dict[str, Any]
    evidence: Evidence


@dataclass(frozen=True)
class Drawn:
    """The parts of the samples, and what each gave.

    Attributes:
        fingerprint: of the data.
        seed: that drew the parts, from the fingerprint and the graphs.
        shape: what the first part decided.
        evidence: of the second part, which was only run when that was fixed.
        labels: of the second part, in the same order.
        stage_times: of the stages in batches.
        where: what ran them.
    """

    fingerprint: str
    seed: str
    shape: Shape
    evidence: Evidence
    labels: npt.NDArray[np.int64]
    stage_times: StageTimes
    where: ExecutionTarget


def fingerprint_of(manifest: Manifest, samples: Samples) -> str:
    """Of the images of a user's own, else of the data set that the artifact was trained on."""
    return samples.fingerprint if isinstance(samples, UnlabelledFolder) else manifest.provenance.data_fingerprint


def draw(
    manifest: Manifest,
    engine: CascadeEngine,
    samples: Samples,
    settings: recipe.Calibrate,
    progress: Progress | None = None,
    *,
    against: Against | None = None,
) -> Drawn:
    """Make a path on one part of the samples, then run the other.

    Args:
        manifest: of the artifact that is calibrated.
        engine: opened from it.
        samples: N images that training has not seen.
        settings: of the calibration.
        progress: called with (images done, all images).
        against: what is measured against; None: the last exit.

    Raises:
        VerificationError: if a logit is not finite.
    """
    fingerprint = fingerprint_of(manifest, samples)
    seed = seed_of(fingerprint, graphs_digest(manifest))
    parts = draw_parts(len(samples), seed)
    total = len(parts.shape) + (2 if against else 1) * len(parts.certify)
    shape = make_shape(engine, Subset(samples, parts.shape), settings, part(progress, 0, total))
    if against:  # even if nobody leaves, something may be lost: a step that is tested, as path[0] never is
        shape = replace(shape, path=(shape.path[0], *shape.path))
    held = Subset(samples, parts.certify)
    evidence = collect(
        engine,
        held,
        shape.fitted,
        unlabelled=settings.unlabelled,
        against=against,
        progress=part(progress, len(parts.shape), total),
    )
    evidence = with_labels(evidence, held, settings.per)
    times = stage_times(engine, manifest, samples)
    return Drawn(fingerprint, seed, shape, evidence, held.targets, times, engine.where)


def certified(
    manifest: Manifest,
    engine: CascadeEngine,
    samples: Samples,
    settings: recipe.Calibrate,
    *,
    split: str,
    against: Against | None = None,
    progress: Progress | None = None,
) -> Certified:
    """Make a path on one part of the samples and test it on the other, which is only run when the path is fixed.

    Args:
        manifest: of the artifact that is calibrated.
        engine: opened from it.
        samples: N images that training has not seen.
        settings: with a confidence.
        split: what the samples are.
        against: what is measured against; None: the last exit.
        progress: called with (images done, all images).

    Raises:
        UsageError: if no certified thresholds keep the budget of the settings.
        VerificationError: if a logit is not finite.
    """
    drawn = draw(manifest, engine, samples, settings, progress, against=against)
    shape, evidence = drawn.shape, drawn.evidence
    levels = certify(evidence, shape.path, settings)
    tested = max(len(level.p_values) for level in levels)
    certificate = {
        "confidence": settings.confidence,
        "loss": "disagreement" if settings.unlabelled else "accuracy drop",
        "test": "binomial" if settings.unlabelled else "betting",
        "per": settings.per,
        "against": against and against.digest,
        "levels": levels,
        "path": shape.path[: tested + 1],  # what was not tested says nothing
        "temperatures": shape.fitted.temperatures,
        "policy": settings.policy,
        "parameters": shape.fitted.policy.parameters,
        "graphs": graphs_digest(manifest),
        "wiring": wiring_digest(manifest),
        **drawn.where._asdict(),
        "precision": tuple(segment.precision for segment in manifest.segments),
        "data_fingerprint": drawn.fingerprint,
        "own_images": _own(samples),
        "seed": drawn.seed,
        "shape_samples": shape.evidence.right.shape[1],
        "certify_samples": evidence.right.shape[1],
    }
    evidence = replace(evidence, shape_confidences=shape.evidence.confidences)
    wish = next(level for level in levels if level.max_drop == settings.max_drop)
    policy = _policy(drawn, wish, settings, split, cost=_cost(engine, samples, drawn))
    _warn_of_classes(drawn, policy, settings, manifest)
    return Certified(shape.fitted.temperatures, policy, certificate, evidence)


def in_expectation(
    manifest: Manifest,
    engine: CascadeEngine,
    samples: Samples,
    settings: recipe.Calibrate,
    *,
    split: str,
    progress: Progress | None = None,
) -> tuple[tuple[float, ...], Policy]:
    """Temperatures and a policy by conformal risk control: the mean drop over calibrations keeps the wish.

    On the same parts and path as a certificate, as what chose nothing must be exchangeable with new samples. Single
    calibrations may lose more, so that it is never called certified and nothing is kept to verify.

    Args:
        manifest: of the artifact that is calibrated.
        engine: opened from it.
        samples: N images that training has not seen.
        settings: with ``in_expectation``.
        split: what the samples are.
        progress: called with (images done, all images).

    Raises:
        VerificationError: if a logit is not finite.
    """
    drawn = draw(manifest, engine, samples, settings, progress)
    path = drawn.shape.path
    found = np.stack([losses(drawn.evidence, step) for step in path])
    step = conformal_risk_control(found, settings.max_drop) - 1  # path[0] loses nothing: it is always among them
    policy = _at(max(step, 0), drawn, settings, split, "in expectation")
    _warn_of_classes(drawn, policy, settings, manifest)
    return drawn.shape.fitted.temperatures, _cost(engine, samples, drawn)(policy)


def _warn_of_classes(drawn: Drawn, policy: Policy, settings: recipe.Calibrate, manifest: Manifest) -> None:
    if settings.per == "class" or settings.unlabelled:
        return  # it is kept in every class, or no label is looked at
    warn_of_classes(
        drawn.evidence, drawn.labels, policy.thresholds, classes=manifest.classes, max_drop=settings.max_drop
    )


def _own(samples: Samples) -> Literal["apart", "not compared"] | None:
    if not isinstance(samples, UnlabelledFolder):
        return None
    return "apart" if samples.apart else "not compared"


def _at(step: int, drawn: Drawn, settings: recipe.Calibrate, split: str, guarantee: Guarantee) -> Policy:
    """The policy at a step of the path."""
    shape, evidence = drawn.shape, drawn.evidence
    return Policy(
        kind=settings.policy,
        parameters=shape.fitted.policy.parameters,
        thresholds=shape.path[step],
        max_drop=settings.max_drop,
        guarantee=guarantee,
        split=split,
        samples=evidence.right.shape[1],
        stage_ms=shape.stage_ms,
        decision_ms=shape.decision_ms,
        stage_times=drawn.stage_times,
        **drawn.where._asdict(),
        **figures(evidence, shape.path[step], unlabelled=settings.unlabelled),
    )


def _cost(engine: CascadeEngine, samples: Samples, drawn: Drawn) -> Callable[[Policy], Policy]:
    """Measures what a policy takes beyond its stages, and writes it into it."""

    def measured(policy: Policy) -> Policy:
        found = overhead(engine, samples, policy, drawn.shape.fitted.temperatures)
        return policy.model_copy(update={"overhead": found})

    return measured


def _policy(
    drawn: Drawn, wish: CertifiedDrop, settings: recipe.Calibrate, split: str, *, cost: Callable[[Policy], Policy]
) -> Policy:
    fastest = cost(_at(wish.certified, drawn, settings, split, "certified" if wish.certified else "no certificate"))
    budget = settings.budget_ms

    def at(step: int) -> Policy:
        policy = _at(step, drawn, settings, split, "certified" if wish.certified else "no certificate")
        return policy.model_copy(update={"overhead": fastest.overhead})

    if budget is None or not wish.certified:
        return fastest
    if fastest.mean_ms > budget:
        raise UsageError(
            f"No thresholds that are certified for a drop of {settings.max_drop:.2%} take {budget:g} ms on average.",
            allowed=f"{fastest.mean_ms:.3g} ms or more; nobody leaves early at {at(0).mean_ms:.3g} ms",
            next_step="raise --budget or --max-drop, or calibrate on more samples",
        )
    # every step up to the last certified one keeps the bound: which of them is taken needs no further test
    return next(policy for step in range(wish.certified + 1) if (policy := at(step)).mean_ms <= budget)
