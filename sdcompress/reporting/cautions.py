"""What a reader must know before relying on a report: each kind of caution once, however many networks it is about."""

from __future__ import annotations

from collections.abc import Sequence

from sdcompress.reporting.classes import class_cautions
from sdcompress.reporting.noise import noise
from sdcompress.reporting.quantities import share, speedup
from sdcompress.reporting.rows import comparison_of, difference_of, judged, shown
from sdcompress.schema.report import BenchReport, Report

__all__ = ["cautions"]

_LARGEST_RESIDUAL = 0.10
_MEDIAN_FLATTERS = 1.2
_MOST_NAMED = 3


def cautions(report: Report) -> list[str]:
    """One sentence or two for each kind; none where there is nothing to be cautious of."""
    found = list(report.notes)
    if report.rows and all(row.test_accuracy is None for row in report.rows):
        found.append("Nothing was evaluated on the test split: validation accuracy has seen the choice of thresholds.")
    for bench in report.benches:
        if bench.threads > 1:
            found.append(f"Measured with {bench.threads} threads: on a machine with other work this is not repeatable.")
        found += [said for said in (noise(bench.records),) if said]
        found += _mixtures(bench)
    machines = {(bench.machine.cpu, bench.machine.gpu) for bench in report.benches}
    if len(machines) > 1:
        found.append("The benchmarks ran on different machines: compare times only within one of them.")
    return [*found, *_flattering(report), *_classes(report), *_unpaired(report)]


def _mixtures(bench: BenchReport) -> list[str]:
    """Cascades whose mean is not the sum of what their exits take."""
    off = {
        f"{record.name} by {share(record.mixture_residual)}": abs(record.mixture_residual)
        for record in bench.records
        if record.mixture_residual is not None and abs(record.mixture_residual) > _LARGEST_RESIDUAL
    }
    if not off:
        return []
    why = "the cost of deciding where to leave, or a machine that changed in between"
    named = _few(sorted(off, key=lambda name: -off[name]))
    return [f"The mean differs from what the exits cost when forced ({named}): {why}."]


def _flattering(report: Report) -> list[str]:
    """Early exits whose median is the time of their commonest exit."""
    names = []
    for row in report.rows:
        c = comparison_of(report, row)
        if c is not None and c.speedup_p50 >= _MEDIAN_FLATTERS * c.speedup_mean:
            names.append(f"{row.name}, {speedup(c.speedup_p50)} against {speedup(c.speedup_mean)} in the mean")
    if not names:
        return []
    why = "it is the time of the commonest exit; the mean decides the throughput"
    return [f"Do not quote the median ({_few(names, '; ')}): {why}."]


def _classes(report: Report) -> list[str]:
    """Each kind of what an accuracy hides, by its first network, with the number of the others."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for evaluation in shown(report):
        for kind, sentence in class_cautions(evaluation):
            kinds.setdefault(kind, []).append((evaluation.name, sentence))
    found = []
    for sentences in kinds.values():
        others = [name for name, _ in sentences[1:]]
        found.append(sentences[0][1] + (f" The like holds for {_few(others)}." if others else ""))
    return found


def _unpaired(report: Report) -> list[str]:
    """Rows whose accuracy differs from the reference's by a figure without an interval."""
    reference = next((row for row in report.rows if row.name == report.reference), None)
    if reference is None:
        return []
    others = [row for row in report.rows if row is not reference and judged(report, row, reference)]
    names = [row.name for row in others if difference_of(report, row) is None]
    if not names:
        return []
    without = f"{_few(names)}: the difference in accuracy from {reference.name} has no interval"
    return [f"{without}. It needs both evaluated on the same images by this version: evaluate again."]


def _few(names: Sequence[str], between: str = ", ") -> str:
    more = len(names) - _MOST_NAMED
    return between.join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
