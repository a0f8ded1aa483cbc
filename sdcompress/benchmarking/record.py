"""Compute the records and comparisons of a benchmark from its timed calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from sdcompress.benchmarking.candidate import Measurement
from sdcompress.benchmarking.stability import reasons
from sdcompress.benchmarking.stats import (
    latency,
    ratio_of_means,
    ratio_of_medians,
    ratio_of_sums,
    sample_floor,
    verdict,
)
from sdcompress.schema.recipe import Bench
from sdcompress.schema.report import BenchRecord, Comparison, ExitTiming, Machine
from sdcompress.tasks import Array, metric_of

__all__ = ["compare", "record"]

Scenario = Literal["single-stream", "offline"]


def record(
    measurement: Measurement,
    scenario: Scenario,
    batch: int,
    *,
    targets: Array | None,
    settings: Bench,
    machine: Machine,
) -> BenchRecord:
    """Return all measurements of one candidate in one scenario.

    Args:
        measurement: finished.
        scenario: of the measurement.
        batch: samples in a call.
        targets: of the candidate's inputs, [N, ...], or None.
        settings: of the run.
        machine: as described before the run.
    """
    candidate, ms = measurement.candidate, measurement.free.ms
    unstable_reasons = reasons(
        measurement.fixed.ms,
        same_work=bool(measurement.forced) or len(candidate.engine.exit_names) == 1,
        threads=settings.threads,
        cores=machine.cores,
        quota=machine.quota,
        busy_cores=machine.busy_cores,
    )
    exits = _exit_timings(measurement)
    preparation = latency(measurement.preparation.ms, settings.percentiles)
    return BenchRecord(
        name=candidate.name,
        source=candidate.source,
        digest=candidate.digest,
        layout=candidate.layout,
        scenario=scenario,
        batch=batch,
        latency=latency(ms, settings.percentiles),
        preparation=preparation,
        end_to_end_ms=float(ms.mean()) + preparation.mean_ms,
        samples_per_second=float(1000.0 * batch * len(ms) / ms.sum()),
        load_ms=candidate.load_ms,
        first_ms=candidate.first_ms,
        metric=None if targets is None else _score(measurement, targets),
        exits=exits,
        worst_path=latency(measurement.forced[-1].ms, settings.percentiles) if measurement.forced else None,
        mixture_residual=_mixture_residual(measurement, exits) if measurement.forced else None,
        stable=not unstable_reasons,
        reasons=unstable_reasons,
        raw_ms=tuple(ms.tolist()),
    )


def compare(
    measurements: Sequence[Measurement], reference: str, scenario: Scenario, batch: int, *, seed: int = 0
) -> list[Comparison]:
    """Compare each candidate with the reference over their interleaved rounds."""
    base = next(measurement for measurement in measurements if measurement.candidate.name == reference)
    comparisons = []
    for measurement in measurements:
        if measurement is base:
            continue
        p50 = ratio_of_medians(base.free.rounds, measurement.free.rounds, seed=seed)
        mean = ratio_of_means(base.free.rounds, measurement.free.rounds, seed=seed)
        end_to_end = ratio_of_sums(_end_to_end(base), _end_to_end(measurement), seed=seed)
        comparisons.append(
            Comparison(
                name=measurement.candidate.name,
                reference=reference,
                scenario=scenario,
                batch=batch,
                speedup_p50=p50.value,
                low=p50.low,
                high=p50.high,
                speedup_mean=mean.value,
                mean_low=mean.low,
                mean_high=mean.high,
                speedup_end_to_end=end_to_end.value,
                end_to_end_low=end_to_end.low,
                end_to_end_high=end_to_end.high,
                rounds=len(base.free.rounds),
                verdict=verdict(mean),
            )
        )
    return comparisons


def _end_to_end(measurement: Measurement) -> list[list[npt.NDArray[np.float64]]]:
    return [measurement.preparation.rounds, measurement.free.rounds]


def _score(measurement: Measurement, targets: Array) -> float:
    decisions = np.concatenate(list(measurement.free.first_decisions))
    return metric_of(measurement.candidate.engine.task.loss(decisions, targets[: len(decisions)]))


def _exit_timings(measurement: Measurement) -> tuple[ExitTiming, ...]:
    if not measurement.forced:
        return ()
    exit_index, ms = measurement.free.exit_index[:, 0], measurement.free.ms
    names = measurement.candidate.engine.exit_names
    return tuple(
        ExitTiming(
            name=name,
            share=float((exit_index == k).mean()),
            p50_ms=float(np.median(ms[exit_index == k])) if (exit_index == k).sum() >= sample_floor(50.0) else None,
            forced_p50_ms=float(np.median(timed_call.ms)),
            forced_mean_ms=float(timed_call.ms.mean()),
        )
        for k, (name, timed_call) in enumerate(zip(names, measurement.forced, strict=True))
    )


def _mixture_residual(measurement: Measurement, exits: tuple[ExitTiming, ...]) -> float:
    expected = sum(
        timing.share * timed_call.ms.mean() for timing, timed_call in zip(exits, measurement.forced, strict=True)
    )
    return float(measurement.free.ms.mean() / expected - 1.0)
