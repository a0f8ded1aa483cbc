"""Warnings about the figures of a report. Each kind appears once, for any number of networks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sdcompress.reporting.quantities import share, speedup
from sdcompress.reporting.rows import comparison_of, difference_of, evaluation_pair, shown_evaluations
from sdcompress.reporting.strata import stratum_cautions
from sdcompress.schema.report import BenchRecord, BenchReport, Report

__all__ = ["cautions", "noise"]

_MAX_RESIDUAL = 0.10
_MISLEADING_RATIO = 1.2
_MAX_NAMED = 3
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
_ADVICE = (
    "The machine causes this, not the networks. Stop other work and measure again, for longer (--duration 30s)."
    " Speed-ups suffer less, because the networks took turns."
)


def cautions(report: Report) -> list[str]:
    """Return one or two sentences for each kind of warning that applies."""
    sentences = list(report.notes)
    if report.rows and all(row.test_metric is None for row in report.rows):
        sentences.append("Nothing was evaluated on the test split. The thresholds were chosen on the validation split.")
    for bench in report.benches:
        if bench.threads > 1:
            sentences.append(f"Measured with {bench.threads} threads: beside other work this is not repeatable.")
        sentences += filter(None, [noise(bench.records)])
        sentences += _mixtures(bench)
    machines = {(bench.machine.cpu, bench.machine.gpu) for bench in report.benches}
    if len(machines) > 1:
        sentences.append("The benchmarks ran on different machines. Compare times only within one of them.")
    return [*sentences, *_misleading_medians(report), *_strata(report), *_unpaired(report)]


def _mixtures(bench: BenchReport) -> list[str]:
    """Return cascades whose mean time is not the weighted sum of the times of their exits."""
    residuals = {
        f"{record.name} by {share(record.mixture_residual)}": abs(record.mixture_residual)
        for record in bench.records
        if record.mixture_residual is not None and abs(record.mixture_residual) > _MAX_RESIDUAL
    }
    if not residuals:
        return []
    cause = "decisions take time, or the machine changed in between"
    named = _first_names(sorted(residuals, key=lambda name: -residuals[name]))
    return [f"The mean differs from the weighted sum of the forced exits ({named}): {cause}."]


def _misleading_medians(report: Report) -> list[str]:
    """Return cascades whose median is the time of their commonest exit."""
    names = []
    for row in report.rows:
        c = comparison_of(report, row)
        if c is not None and c.speedup_p50 >= _MISLEADING_RATIO * c.speedup_mean:
            names.append(f"{row.name}, {speedup(c.speedup_p50)} against {speedup(c.speedup_mean)} in the mean")
    if not names:
        return []
    cause = "it is the time of the commonest exit; the mean decides the throughput"
    return [f"Do not quote the median ({_first_names(names, '; ')}): {cause}."]


def _strata(report: Report) -> list[str]:
    """Return each kind of warning about strata once, for its first network, and name the others."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for evaluation in shown_evaluations(report):
        for kind, sentence in stratum_cautions(evaluation):
            kinds.setdefault(kind, []).append((evaluation.name, sentence))
    cautions_ = []
    for sentences in kinds.values():
        other_names = [name for name, _ in sentences[1:]]
        cautions_.append(sentences[0][1] + (f" The same holds for {_first_names(other_names)}." if other_names else ""))
    return cautions_


def _unpaired(report: Report) -> list[str]:
    """Return rows whose difference from the reference has no interval."""
    reference = next((row for row in report.rows if row.name == report.reference), None)
    if reference is None:
        return []
    compared = [row for row in report.rows if row is not reference and evaluation_pair(report, row, reference)]
    names = [row.name for row in compared if difference_of(report, row) is None]
    if not names:
        return []
    without = f"{_first_names(names)}: the difference in {report.metric_name} from {reference.name} has no interval"
    return [f"{without}. Evaluate both on the same images with this version."]


def _first_names(names: Sequence[str], between: str = ", ") -> str:
    more = len(names) - _MAX_NAMED
    return between.join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def noise(records: Sequence[BenchRecord]) -> str | None:
    """Return one paragraph on all unsteady measurements, or None if all are steady.

    Args:
        records: of one benchmark.
    """
    noisy = [record for record in records if not record.stable]
    if not noisy:
        return None
    kinds: dict[str, list[str]] = {}
    for record in noisy:
        for reason in record.reasons:
            kinds.setdefault(_NUMBER.sub("#", reason), []).append(reason)
    reasons = "; ".join(_strongest(similar) for similar in kinds.values())
    return (
        f"The times of {_measurements(noisy, len(records))} are not steady{': ' if reasons else ''}{reasons}. {_ADVICE}"
    )


def _measurements(noisy: Sequence[BenchRecord], total: int) -> str:
    if len(noisy) > _MAX_NAMED:
        return f"{len(noisy)} of {total} measurements"
    return " and ".join(f"{record.name} ({record.scenario}, batch {record.batch})" for record in noisy)


def _strongest(reasons: Sequence[str]) -> str:
    """Return the reason with the largest number, of reasons that differ only in numbers, and their count."""
    strongest = max(
        reasons, key=lambda reason: abs(float(_NUMBER.findall(reason)[0])) if _NUMBER.search(reason) else 0.0
    )
    if len(set(reasons)) == 1:
        return strongest
    return f"{strongest} (the largest of {len(reasons)})"
