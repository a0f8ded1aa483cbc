"""Compute the records and comparisons of a benchmark from its timed calls, with reasons to distrust them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from sdcompress.benchmarking.candidate import Measurement
from sdcompress.benchmarking.stats import (
    latency,
    ratio_of_means,
    ratio_of_medians,
    ratio_of_sums,
    sample_floor,
    verdict,
)
from sdcompress.benchmarking.timed_calls import TimedCall
from sdcompress.machine import most_threads
from sdcompress.runtime.one_graph import OneGraphEngine
from sdcompress.schema.recipe import Bench
from sdcompress.schema.report import BackendComparison, BenchRecord, Comparison, ExitTiming, Machine
from sdcompress.tasks import Array, metric_of

__all__ = ["compare", "compare_backends", "reasons", "record"]

Scenario = Literal["single-stream", "offline"]

_MAX_CV = 0.10
_MAX_SLOW = 0.01
_MAX_DRIFT = 0.05


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
        cores=most_threads(),
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
        backend=candidate.backend,
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
        **_predicted(measurement, exits, settings.device),
        stable=not unstable_reasons,
        reasons=unstable_reasons,
        raw_ms=tuple(ms.tolist()),
    )


def compare(measurements: Sequence[Measurement], reference: str, scenario: Scenario, batch: int) -> list[Comparison]:
    """Compare each candidate with the reference over their interleaved rounds."""
    base = next(measurement for measurement in measurements if measurement.candidate.name == reference)
    comparisons = []
    for measurement in measurements:
        if measurement is base:
            continue
        p50 = ratio_of_medians(base.free.rounds, measurement.free.rounds)
        mean = ratio_of_means(base.free.rounds, measurement.free.rounds)
        end_to_end = ratio_of_sums(_end_to_end(base), _end_to_end(measurement))
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


def compare_backends(measurements: Sequence[Measurement], scenario: Scenario, batch: int) -> list[BackendComparison]:
    """Compare the two fastest backends of each artifact that was measured on several."""
    by_artifact: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        by_artifact.setdefault(measurement.candidate.artifact_name, []).append(measurement)
    comparisons = []
    for name, several in by_artifact.items():
        if len(several) < 2:
            continue
        ranked = sorted(several, key=lambda measurement: float(measurement.free.ms.mean()))
        ratio = ratio_of_means(ranked[1].free.rounds, ranked[0].free.rounds)
        comparisons.append(
            BackendComparison(
                name=name,
                scenario=scenario,
                batch=batch,
                mean_ms={one.candidate.backend: float(one.free.ms.mean()) for one in ranked},
                speedup=ratio.value,
                low=ratio.low,
                high=ratio.high,
                verdict=verdict(ratio),
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
            mean_ms=float(ms[exit_index == k].mean()) if (exit_index == k).any() else None,
            forced_p50_ms=float(np.median(timed_call.ms)),
            forced_mean_ms=float(timed_call.ms.mean()),
        )
        for k, (name, timed_call) in enumerate(zip(names, measurement.forced, strict=True))
    )


def _mixture_residual(measurement: Measurement, exits: tuple[ExitTiming, ...]) -> float:
    expected = sum(
        timing.share * _forced_mean(measurement, k, timed_call)
        for k, (timing, timed_call) in enumerate(zip(exits, measurement.forced, strict=True))
    )
    return float(measurement.free.ms.mean() / expected - 1.0)


def _forced_mean(measurement: Measurement, exit_index: int, timed_call: TimedCall) -> float:
    """Return the mean ms to an exit of the inputs that take it by themselves; of all inputs if none of them was run."""
    exits, inputs = measurement.free.exits_of_inputs[:, 0], timed_call.input_index
    known = inputs < len(exits)  # the others were not run without force
    take_it = known & (exits[np.where(known, inputs, 0)] == exit_index)
    return float(timed_call.ms[take_it if take_it.any() else slice(None)].mean())


def _predicted(measurement: Measurement, exits: tuple[ExitTiming, ...], device: str) -> dict[str, float]:
    """Return what the calibration predicts of one sample at a time; nothing if it was not made for this target."""
    candidate, engine = measurement.candidate, measurement.candidate.engine
    policy = None if isinstance(engine, OneGraphEngine) or not exits else engine.policy
    if policy is None or (policy.backend, policy.device) != (candidate.backend, device):
        return {}
    at_shares_ms = policy.expected_ms([timing.share for timing in exits])
    return {"predicted_ms": policy.mean_ms, "predicted_at_shares_ms": at_shares_ms}


def reasons(
    times: npt.NDArray[np.float64],
    *,
    same_work: bool,
    threads: int,
    cores: int,
    quota: float | None,
    busy_cores: float | None,
) -> tuple[str, ...]:
    """Return why times are not stable; empty if they are.

    Args:
        times: ms of each call in order, [n].
        same_work: whether every call does the same work. If samples take different exits, times scatter, and only
            drift is checked.
        threads: that the engine uses.
        cores: of the machine, busy ones included; this process may be allowed fewer.
        quota: cores that the control groups allow; None without a limit.
        busy_cores: cores that other work used just before the run; None if unknown.
    """
    texts = []
    if len(times) < sample_floor(50.0):
        texts.append(f"{len(times)} calls, {sample_floor(50.0)} are needed for a median: measure for longer")
    if same_work:
        texts += _scatter(times)
    texts += _drift(times)
    if busy_cores is not None and busy_cores + threads > cores + 0.25:
        texts.append(f"other work kept {busy_cores:.1f} of {cores} cores busy before the run, {threads} threads wanted")
    if quota is not None and threads > quota:
        texts.append(f"a control group allows {quota:g} cores, {threads} threads wanted: some of them wait")
    return tuple(texts)


def _scatter(times: npt.NDArray[np.float64]) -> list[str]:
    texts = []
    cv = float(times.std() / times.mean())
    if cv > _MAX_CV:
        texts.append(f"times scatter by {cv * 100:.0f} % (standard deviation / mean), more than {_MAX_CV * 100:.0f} %")
    slow = float((times > 3.0 * np.median(times)).mean())
    if slow > _MAX_SLOW:
        texts.append(f"{slow * 100:.1f} % of the calls took more than three medians, more than {_MAX_SLOW * 100:.0f} %")
    return texts


def _drift(times: npt.NDArray[np.float64]) -> list[str]:
    """Compare both halves; a difference counts above 5 % and three standard errors."""
    half = len(times) // 2
    if half < 2:
        return []
    first, second = times[:half], times[half:]
    drift = float(second.mean() / first.mean() - 1.0)
    chance = math.hypot(float(first.std()) / math.sqrt(half), float(second.std()) / math.sqrt(len(second)))
    if abs(drift) > _MAX_DRIFT and abs(float(second.mean() - first.mean())) > 3.0 * chance:
        return [f"calls drifted by {drift * 100:+.0f} % from the first half to the second"]
    return []
