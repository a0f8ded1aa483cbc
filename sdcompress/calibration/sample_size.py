"""How many calibration samples a wish needs on this artifact, seen from the part that certifies nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from sdcompress.artifact.certificate import graphs_digest
from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.calibration.calibrate import LEAST_SAMPLES, check_policy, check_subject, least_samples
from sdcompress.calibration.certified import fingerprint_of
from sdcompress.calibration.tuning import Shape, make_shape
from sdcompress.certification.calibration_split import draw_parts, samples_for, seed_of
from sdcompress.certification.certify import losses, smallest_target
from sdcompress.certification.groups import members
from sdcompress.certification.power_analysis import samples_for_betting, samples_for_binomial
from sdcompress.data.samples import Samples, Subset
from sdcompress.data.unlabelled import UnlabelledFolder
from sdcompress.errors import DataError, UsageError
from sdcompress.options import AS_USUAL, EngineOptions
from sdcompress.policies import leave
from sdcompress.progress import Progress
from sdcompress.runtime.open import open_network
from sdcompress.schema import recipe
from sdcompress.schema.report import Plan, PlanRow

__all__ = ["POWER", "plan"]

POWER = 0.8  # the share of calibrations that find the certificate with the planned number
_ASSUMED = (0.0, 0.25, 0.5, 0.75)  # of the allowed drop
_MOST_ROWS = 8


def plan(
    artifact: Artifact | Path | str,
    settings: recipe.Calibrate,
    options: EngineOptions = AS_USUAL,
    *,
    samples: Samples,
    progress: Progress | None = None,
) -> Plan:
    """Say how many samples certify the wish at each speed, as far as the shape part can tell.

    Only the shape part is run, which the tests never see: looking at a plan spoils no certificate.

    Args:
        artifact: a cascade.
        settings: the wish, with a confidence.
        options: the threads (default: one) at which stages are measured; the backend and the device that the
            certificate would be for.
        samples: the calibration samples that there are.
        progress: called with (images done, all images).

    Raises:
        UsageError: if the artifact is no cascade, or there is no confidence.
        DataError: if there are fewer than 50 samples, or a label is none of the classes.
    """
    opened = open_artifact(artifact)
    check_subject(opened)
    check_policy(settings, len(opened.manifest.exits))
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
            next_step="collect more images"
            if isinstance(samples, UnlabelledFolder)
            else "set data.validation higher and train again",
        )
    seed = seed_of(fingerprint_of(opened.manifest, samples), graphs_digest(opened.manifest))
    parts = draw_parts(len(samples), seed)
    engine = open_network(opened, replace(options, threads=options.threads or 1, allow_uncertified=True))
    shape = make_shape(engine, Subset(samples, parts.shape), settings, progress)
    smallest, share = _smallest(samples, opened.manifest.classes, settings)
    assumed = () if settings.per == "exit" else _ASSUMED  # by how many they would leave is not assumed
    return Plan(
        source=str(opened.path),
        max_drop=settings.max_drop,
        confidence=settings.confidence,
        loss="disagreement" if settings.unlabelled else "accuracy drop",
        per=settings.per,
        smallest=smallest,
        power=POWER,
        samples=len(samples),
        seen=len(parts.shape),
        least=math.ceil(least_samples(settings) / share),
        assumed=tuple(_row(part * settings.max_drop, 0.0, share, None, settings) for part in assumed),
        observed=_observed(shape, settings),
    )


def _smallest(samples: Samples, classes: tuple[str, ...], settings: recipe.Calibrate) -> tuple[str | None, float]:
    """The smallest class in words and its share of the samples, where the wish is for every class; else everybody."""
    if settings.per != "class":
        return None, 1.0
    counts = np.bincount(samples.targets, minlength=len(classes))
    label = int(counts.argmin())
    # a class that is not there: as if there were one, so that the number says how far away it is
    return f"'{classes[label]}', {counts[label]} of {len(samples)}", max(1, int(counts[label])) / len(samples)


def _observed(shape: Shape, settings: recipe.Calibrate) -> tuple[PlanRow, ...]:
    stop = len(shape.path) - 1
    for step, thresholds in enumerate(shape.path[1:], 1):
        found = losses(shape.evidence, thresholds)
        if any(found[mask].mean() >= settings.max_drop for mask in members(shape.evidence, thresholds, settings.per)):
            stop = step  # from here on there is nothing to certify
            break
    chosen = np.unique(np.linspace(1, stop, min(_MOST_ROWS, stop)).round().astype(int)) if stop else ()
    return tuple(_seen(shape, shape.path[step], settings) for step in chosen)


def _seen(shape: Shape, thresholds: tuple[float, ...], settings: recipe.Calibrate) -> PlanRow:
    """What the group that needs most samples needs."""
    mean_ms = float(np.cumsum(shape.stage_ms)[leave(shape.evidence.confidences, thresholds)].mean())
    found = losses(shape.evidence, thresholds)
    rows = [
        _row(float((found[mask] > 0).mean()), float((found[mask] < 0).mean()), float(mask.mean()), mean_ms, settings)
        for mask in members(shape.evidence, thresholds, settings.per)
    ]
    return max(rows, key=lambda row: (math.inf if row.needs is None else row.needs, row.lost - row.gained))


def _row(lost: float, gained: float, share: float, mean_ms: float | None, settings: recipe.Calibrate) -> PlanRow:
    """``share``: of the samples that are in the group, which has these losses."""
    _, delta = smallest_target(settings)
    if settings.unlabelled:
        needed = samples_for_binomial(lost, settings.max_drop, delta, POWER)
    else:
        needed = samples_for_betting(lost, gained, settings.max_drop, delta, POWER)
    needs = None if needed is None else samples_for(math.ceil(needed / share))
    return PlanRow(mean_ms=mean_ms, lost=lost, gained=gained, needs=needs)
