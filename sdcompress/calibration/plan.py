"""How many calibration samples a wish needs on this artifact, seen from the part that certifies nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sdcompress.artifact.certificate import CERTIFIED_BACKEND, graphs_digest
from sdcompress.artifact.read import open_artifact
from sdcompress.calibration.calibrate import LEAST_SAMPLES, check_subject, least_samples
from sdcompress.calibration.certify import Shape, deltas, losses, make_shape
from sdcompress.calibration.parts import draw_parts, samples_for, seed_of
from sdcompress.calibration.planning import samples_for_betting, samples_for_binomial
from sdcompress.calibration.thresholds import leave
from sdcompress.data.samples import Samples, Subset
from sdcompress.errors import DataError, UsageError
from sdcompress.runtime.open import open_engine
from sdcompress.schema import recipe
from sdcompress.schema.report import Plan, PlanRow

__all__ = ["POWER", "plan"]

POWER = 0.8  # the share of calibrations that find the certificate with the planned number
_ASSUMED = (0.0, 0.25, 0.5, 0.75)  # of the allowed drop
_MOST_ROWS = 8


def plan(
    artifact: Path,
    *,
    samples: Samples,
    settings: recipe.Calibrate,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Plan:
    """Say how many samples certify the wish at each speed, as far as the shape part can tell.

    Only the shape part is run, which the tests never see: looking at a plan spoils no certificate.

    Args:
        artifact: a cascade.
        samples: the calibration samples that there are.
        settings: the wish, with a confidence.
        threads: at which the stages are measured.
        progress: called with (images done, all images).

    Raises:
        UsageError: if the artifact is no cascade, or there is no confidence.
        DataError: if there are fewer than 50 samples, or a label is none of the classes.
    """
    opened = open_artifact(artifact)
    check_subject(opened)
    if settings.confidence is None:
        raise UsageError(
            "A plan is for a certificate, and no confidence is given.",
            allowed="50% to below 100%",
            next_step="add --confidence 95%",
        )
    if len(samples) < LEAST_SAMPLES:
        raise DataError(
            f"There are {len(samples)} samples, too few to see anything on.",
            allowed=f"at least {LEAST_SAMPLES}",
            next_step="set data.validation higher and train again",
        )
    seed = seed_of(opened.manifest.provenance.data_fingerprint, graphs_digest(opened.manifest))
    parts = draw_parts(len(samples), seed)
    engine = open_engine(opened.path, backend=CERTIFIED_BACKEND, threads=threads, allow_uncertified=True)
    shape = make_shape(engine, Subset(samples, parts.shape), settings, progress)
    return Plan(
        source=str(artifact),
        max_drop=settings.max_drop,
        confidence=settings.confidence,
        loss="disagreement" if settings.unlabelled else "accuracy drop",
        power=POWER,
        samples=len(samples),
        seen=len(parts.shape),
        least=least_samples(settings),
        assumed=tuple(_row(share * settings.max_drop, 0.0, None, settings) for share in _ASSUMED),
        observed=_observed(shape, settings),
    )


def _observed(shape: Shape, settings: recipe.Calibrate) -> tuple[PlanRow, ...]:
    costs = np.cumsum(shape.stage_ms)
    rows = []
    for thresholds in shape.path[1:]:
        found = losses(shape.evidence, thresholds)
        mean_ms = float(costs[leave(shape.evidence.confidences, thresholds)].mean())
        rows.append(_row(float((found > 0).mean()), float((found < 0).mean()), mean_ms, settings))
        if found.mean() >= settings.max_drop:
            break  # from here on there is nothing to certify
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(_MOST_ROWS, len(rows))).round().astype(int))
    return tuple(rows[row] for row in chosen) if rows else ()


def _row(lost: float, gained: float, mean_ms: float | None, settings: recipe.Calibrate) -> PlanRow:
    assert settings.confidence is not None
    delta = deltas(settings.confidence, len({settings.max_drop, *settings.ladder}))
    if settings.unlabelled:
        needed = samples_for_binomial(lost, settings.max_drop, delta, POWER)
    else:
        needed = samples_for_betting(lost, gained, settings.max_drop, delta, POWER)
    return PlanRow(mean_ms=mean_ms, lost=lost, gained=gained, needs=None if needed is None else samples_for(needed))
