"""Estimate the calibration samples that a certificate needs, from the tuning part of the samples."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.calibration.calibrate import (
    LEAST_SAMPLES,
    MORE_HELD_OUT,
    check_is_cascade,
    check_policy,
    least_samples,
    uncalibrated,
)
from sdcompress.calibration.guarantee import split_of
from sdcompress.calibration.tuning import Tuning, tune
from sdcompress.certification.calibration_split import calibration_count_for
from sdcompress.certification.certify import TestKind, excess_losses, kind_of_test, smallest_drop
from sdcompress.certification.groups import group_masks, group_name, strata_of
from sdcompress.certification.power_analysis import least_samples as least_to_certify
from sdcompress.certification.power_analysis import samples_for_betting, samples_for_binomial
from sdcompress.data.samples import Samples, Subset
from sdcompress.data.unlabelled import UnlabelledFolder
from sdcompress.errors import DataError, UsageError
from sdcompress.options import DEFAULT_OPTIONS, EngineOptions
from sdcompress.policies import exit_index_of
from sdcompress.progress import Progress
from sdcompress.runtime.open import open_cascade
from sdcompress.schema import recipe
from sdcompress.schema.report import PlanRow, SampleSizePlan
from sdcompress.tasks import Task

__all__ = ["POWER", "plan"]

POWER = 0.8  # probability that a calibration with the planned number finds the certificate
_ASSUMED = (0.0, 0.25, 0.5, 0.75)  # of the allowed drop
_MOST_ROWS = 8

Float64 = npt.NDArray[np.float64]


def plan(
    artifact: Artifact | Path | str,
    settings: recipe.Calibrate,
    options: EngineOptions = DEFAULT_OPTIONS,
    *,
    samples: Samples,
    progress: Progress | None = None,
) -> SampleSizePlan:
    """Estimate the number of samples that certify the drop at each speed, from the tuning samples.

    Only the tuning samples are run, which are never tested: a plan does not affect a certificate.

    Args:
        artifact: a cascade.
        settings: the target drop, with a confidence.
        options: threads (default: one) with which stages are measured, and backend and device of the certificate.
        samples: the available calibration samples.
        progress: called with (samples done, all samples).

    Raises:
        UsageError: if the artifact is no cascade, or there is no confidence.
        DataError: if there are fewer than 50 samples, or a target does not fit the task.
    """
    opened = open_artifact(artifact)
    check_is_cascade(opened)
    check_policy(settings, len(opened.manifest.exits), opened.task)
    if settings.confidence is None:
        raise UsageError(
            "A plan is for a certificate, and no confidence is given.",
            allowed="50% to below 100%",
            next_step="add --confidence 95%",
        )
    if len(samples) < LEAST_SAMPLES:
        raise DataError(
            f"There are {len(samples)} samples, too few for an estimate.",
            allowed=f"at least {LEAST_SAMPLES}",
            next_step="collect more samples" if isinstance(samples, UnlabelledFolder) else MORE_HELD_OUT,
        )
    split, _ = split_of(opened.manifest, samples)
    engine = open_cascade(uncalibrated(opened), replace(options, threads=options.threads or 1, allow_uncertified=True))
    tuning, task = tune(engine, Subset(samples, split.tuning), settings, progress), engine.task
    smallest, share = _smallest(samples, task, settings)
    groups = len(task.strata_names) if settings.group_by == "stratum" else 1
    test = kind_of_test(unlabelled=settings.unlabelled, binary_loss=task.binary_loss)
    assumed = () if settings.group_by == "exit" else _ASSUMED  # the sizes of the groups are not assumed
    return SampleSizePlan(
        source=str(opened.path),
        max_drop=settings.max_drop,
        confidence=settings.confidence,
        loss="disagreement" if settings.unlabelled else f"{task.metric} drop",
        group_by=group_name(settings.group_by, task),
        smallest_stratum=smallest,
        power=POWER,
        samples=len(samples),
        tuning_samples=len(split.tuning),
        minimum_samples=_minimum(settings, task, share, test),
        assumed=tuple(
            _row(_assumed(share_of_drop * settings.max_drop), share, None, settings, test, groups=groups)
            for share_of_drop in assumed
        ),
        observed=_observed(tuning, settings, test),
    )


def _smallest(samples: Samples, task: Task, settings: recipe.Calibrate) -> tuple[str | None, float]:
    """Return the smallest stratum in words and its share of the samples; (None, 1) if the drop is not per stratum."""
    if settings.group_by != "stratum":
        return None, 1.0
    counts = np.bincount(strata_of(task, samples.targets), minlength=len(task.strata_names))
    smallest = int(counts.argmin())
    # an empty stratum counts as one sample, so that the plan has a finite number
    share = max(1, int(counts[smallest])) / len(samples)
    return f"'{task.strata_names[smallest]}', {counts[smallest]} of {len(samples)}", share


def _minimum(settings: recipe.Calibrate, task: Task, share: float, test: TestKind) -> int:
    """Return the number of samples below which ``calibrate`` refuses; a stratum needs its own ``share`` of them."""
    certify = least_to_certify(*smallest_drop(settings), exact=test == "binomial")
    return max(least_samples(settings, task), calibration_count_for(math.ceil(certify / share)))


def _observed(tuning: Tuning, settings: recipe.Calibrate, test: TestKind) -> tuple[PlanRow, ...]:
    """Return rows along the path, up to the first step whose loss on the tuning samples reaches the drop."""
    stop = len(tuning.path) - 1
    for step, thresholds in enumerate(tuning.path[1:], 1):
        differences = excess_losses(tuning.evidence, thresholds)
        if any(
            differences[mask].mean() >= settings.max_drop
            for mask in group_masks(tuning.evidence, thresholds, settings.group_by)
        ):
            stop = step
            break
    chosen = np.unique(np.linspace(1, stop, min(_MOST_ROWS, stop)).round().astype(int)) if stop else ()
    return tuple(_worst_group(tuning, tuning.path[step], settings, test) for step in chosen)


def _worst_group(tuning: Tuning, thresholds: tuple[float, ...], settings: recipe.Calibrate, test: TestKind) -> PlanRow:
    """Return the row of the group that needs the most samples."""
    mean_ms = float(np.cumsum(tuning.stage_ms)[exit_index_of(tuning.evidence.scores, thresholds)].mean())
    differences = excess_losses(tuning.evidence, thresholds)
    masks = list(group_masks(tuning.evidence, thresholds, settings.group_by))
    rows = [
        _row(_counted(differences[mask]), float(mask.mean()), mean_ms, settings, test, groups=len(masks))
        for mask in masks
    ]
    return max(
        rows,
        key=lambda row: (math.inf if row.samples_needed is None else row.samples_needed, row.mean_loss - row.mean_gain),
    )


class _Losses(NamedTuple):
    """The values of a loss, and the share of samples with each."""

    values: Float64
    shares: Float64


def _assumed(lost: float) -> _Losses:
    """Return losses of 1 for this share of samples, else 0: no losses in [0, 1] of this mean need more samples."""
    return _Losses(np.array([1.0, 0.0]), np.array([lost, 1 - lost]))


def _counted(losses: Float64) -> _Losses:
    values, counts = np.unique(losses, return_counts=True)
    return _Losses(values, counts / len(losses))


def _row(
    losses: _Losses, share: float, mean_ms: float | None, settings: recipe.Calibrate, test: TestKind, *, groups: int
) -> PlanRow:
    """Return the plan for one of the groups, with these losses; ``share`` is that of the samples in the group.

    All groups have to pass. Of independent ones that happens with the product of their powers, and the other groups
    are taken to be as hard as this one.
    """
    power = POWER ** (1 / groups)
    _, delta = smallest_drop(settings)
    values, shares = losses
    lost, gained = float(np.maximum(values, 0) @ shares), float(np.maximum(-values, 0) @ shares)
    if test == "binomial":
        needed = samples_for_binomial(lost, settings.max_drop, delta, power)
    else:
        needed = samples_for_betting(values, shares, settings.max_drop, delta, power)
    needs = None if needed is None else calibration_count_for(math.ceil(needed / share))
    return PlanRow(mean_ms=mean_ms, mean_loss=lost, mean_gain=gained, samples_needed=needs)
