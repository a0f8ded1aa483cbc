"""From the lanes of a run to its records and comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from sdcompress.benchmarking.contender import Course
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

__all__ = ["compare", "record"]

Scenario = Literal["single-stream", "offline"]


def record(
    course: Course,
    scenario: Scenario,
    batch: int,
    *,
    labels: npt.NDArray[np.int64] | None,
    settings: Bench,
    machine: Machine,
) -> BenchRecord:
    """Everything that was seen of one contender in one scenario.

    Args:
        course: measured.
        scenario: of the course.
        batch: images a call.
        labels: of the contender's inputs, int64 [N], or None.
        settings: of the run.
        machine: described before the run.
    """
    contender, ms = course.contender, course.free.ms
    why = reasons(
        course.fixed.ms,
        same_work=bool(course.forced) or len(contender.engine.exit_names) == 1,
        threads=settings.threads,
        cores=machine.cores,
        quota=machine.quota,
        busy_cores=machine.busy_cores,
    )
    exits = _exit_timings(course)
    preparation = latency(course.preparation.ms, settings.percentiles)
    return BenchRecord(
        name=contender.name,
        source=contender.source,
        digest=contender.digest,
        layout=contender.layout,
        scenario=scenario,
        batch=batch,
        latency=latency(ms, settings.percentiles),
        preparation=preparation,
        end_to_end_ms=float(ms.mean()) + preparation.mean_ms,
        images_per_second=float(1000.0 * batch * len(ms) / ms.sum()),
        load_ms=contender.load_ms,
        first_ms=contender.first_ms,
        accuracy=None if labels is None else _accuracy(course, labels),
        exits=exits,
        worst_path=latency(course.forced[-1].ms, settings.percentiles) if course.forced else None,
        mixture_residual=_mixture_residual(course, exits) if course.forced else None,
        stable=not why,
        reasons=why,
        raw_ms=tuple(ms.tolist()),
    )


def compare(
    courses: Sequence[Course], reference: str, scenario: Scenario, batch: int, *, seed: int = 0
) -> list[Comparison]:
    """Each contender against the reference, over the rounds in which they took turns."""
    base = next(course for course in courses if course.contender.name == reference)
    comparisons = []
    for course in courses:
        if course is base:
            continue
        p50 = ratio_of_medians(base.free.rounds, course.free.rounds, seed=seed)
        mean = ratio_of_means(base.free.rounds, course.free.rounds, seed=seed)
        end_to_end = ratio_of_sums(_end_to_end(base), _end_to_end(course), seed=seed)
        comparisons.append(
            Comparison(
                name=course.contender.name,
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


def _end_to_end(course: Course) -> list[list[npt.NDArray[np.float64]]]:
    return [course.preparation.rounds, course.free.rounds]


def _accuracy(course: Course, labels: npt.NDArray[np.int64]) -> float:
    answers = course.free.first_answers.reshape(-1)
    return float((answers == labels[: len(answers)]).mean())


def _exit_timings(course: Course) -> tuple[ExitTiming, ...]:
    if not course.forced:
        return ()
    left, ms = course.free.exit_index[:, 0], course.free.ms
    names = course.contender.engine.exit_names
    return tuple(
        ExitTiming(
            name=name,
            share=float((left == k).mean()),
            p50_ms=float(np.median(ms[left == k])) if (left == k).sum() >= sample_floor(50.0) else None,
            forced_p50_ms=float(np.median(lane.ms)),
            forced_mean_ms=float(lane.ms.mean()),
        )
        for k, (name, lane) in enumerate(zip(names, course.forced, strict=True))
    )


def _mixture_residual(course: Course, exits: tuple[ExitTiming, ...]) -> float:
    expected = sum(timing.share * lane.ms.mean() for timing, lane in zip(exits, course.forced, strict=True))
    return float(course.free.ms.mean() / expected - 1.0)
