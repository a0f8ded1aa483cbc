"""The policy of a cascade with a certificate, or with the record that none was found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdcompress.artifact.certificate import CERTIFIED_BACKEND, CERTIFIED_DEVICE, graphs_digest
from sdcompress.artifact.evidence import Evidence
from sdcompress.calibration.certify import Shape, certify, collect, make_shape, with_labels
from sdcompress.calibration.parts import draw_parts, seed_of
from sdcompress.calibration.thresholds import leave
from sdcompress.data.samples import Samples, Subset
from sdcompress.errors import UsageError
from sdcompress.runtime.engine import Engine
from sdcompress.schema import recipe
from sdcompress.schema.manifest import CertifiedDrop, Manifest, Policy

__all__ = ["Certified", "certified", "figures"]

Progress = Callable[[int, int], None]


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


def certified(
    manifest: Manifest,
    engine: Engine,
    samples: Samples,
    settings: recipe.Calibrate,
    *,
    split: str,
    progress: Progress | None = None,
) -> Certified:
    """Make a path on one part of the samples and test it on the other, which is only run when the path is fixed.

    Args:
        manifest: of the artifact that is calibrated.
        engine: opened from it.
        samples: N images that training has not seen.
        settings: with a confidence.
        split: what the samples are.
        progress: called with (images done, all images).

    Raises:
        UsageError: if no certified thresholds keep the budget of the settings.
        VerificationError: if a logit is not finite.
    """
    graphs, fingerprint = graphs_digest(manifest), manifest.provenance.data_fingerprint
    seed, total = seed_of(fingerprint, graphs), len(samples)
    parts = draw_parts(total, seed)
    shape = make_shape(engine, Subset(samples, parts.shape), settings, _part(progress, 0, total))
    held = Subset(samples, parts.certify)
    evidence = collect(
        engine,
        held,
        shape.judgement,
        unlabelled=settings.unlabelled,
        progress=_part(progress, len(parts.shape), total),
    )
    evidence = with_labels(evidence, held, settings.per)
    levels = certify(evidence, shape.path, settings)
    tested = max(len(level.p_values) for level in levels)
    certificate = {
        "confidence": settings.confidence,
        "loss": "disagreement" if settings.unlabelled else "accuracy drop",
        "test": "binomial" if settings.unlabelled else "betting",
        "per": settings.per,
        "levels": levels,
        "path": shape.path[: tested + 1],  # what was not tested says nothing
        "temperatures": shape.judgement.temperatures,
        "policy": settings.policy,
        "parameters": shape.judgement.policy.parameters,
        "graphs": graphs,
        "backend": CERTIFIED_BACKEND,
        "device": CERTIFIED_DEVICE,
        "precision": tuple(segment.precision for segment in manifest.segments),
        "data_fingerprint": fingerprint,
        "seed": seed,
        "shape_samples": len(parts.shape),
        "certify_samples": len(parts.certify),
    }
    wish = next(level for level in levels if level.max_drop == settings.max_drop)
    policy = _policy(shape, evidence, wish, settings, split)
    return Certified(shape.judgement.temperatures, policy, certificate, evidence)


def _part(progress: Progress | None, before: int, total: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(before + done, total)


def _policy(shape: Shape, evidence: Evidence, wish: CertifiedDrop, settings: recipe.Calibrate, split: str) -> Policy:
    def at(step: int) -> Policy:
        return Policy(
            kind=settings.policy,
            parameters=shape.judgement.policy.parameters,
            thresholds=shape.path[step],
            max_drop=settings.max_drop,
            guarantee="certified" if wish.certified else "no certificate",
            split=split,
            samples=evidence.right.shape[1],
            stage_ms=shape.stage_ms,
            backend=CERTIFIED_BACKEND,
            **figures(evidence, shape.path[step], unlabelled=settings.unlabelled),
        )

    fastest, budget = at(wish.certified), settings.budget_ms
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


def figures(evidence: Evidence, thresholds: tuple[float, ...], *, unlabelled: bool) -> dict[str, Any]:
    """What a policy says of the samples that certified it: ``shares``, ``accuracy`` and ``reference_accuracy``.

    Args:
        evidence: of these samples.
        thresholds: of the policy.
        unlabelled: the accuracies are not known.
    """
    left = leave(evidence.confidences, thresholds)
    right = evidence.right.astype(np.bool_)
    return {
        "accuracy": None if unlabelled else float(right[left, np.arange(len(left))].mean()),
        "reference_accuracy": None if unlabelled else float(right[-1].mean()),
        "shares": tuple(float((left == exit_).mean()) for exit_ in range(len(right))),
    }
