"""What the figures say, in sentences that are computed from them, good news and bad alike."""

from __future__ import annotations

from sdcompress.evaluation.paired import accuracy_difference
from sdcompress.reporting.classes import class_cautions
from sdcompress.reporting.look_up import accuracy_of, comparison_of, judged, shown
from sdcompress.reporting.quantities import accuracy, count, difference, milliseconds, paired, share, speedup
from sdcompress.schema.report import BenchRecord, BenchReport, Comparison, Report, ReportRow

__all__ = ["cautions", "findings", "headline"]

# the largest loss of accuracy with which an artifact is praised for its speed: one point, as the calibration's default
_SMALL_LOSS = 0.01
_LARGEST_RESIDUAL = 0.10
_MEDIAN_FLATTERS = 1.2


def headline(report: Report) -> str:
    """One sentence: the best trade that was found, or that none was."""
    reference = _reference(report)
    if reference is None or len(report.rows) < 2:
        return " ".join(_alone(row) for row in report.rows[:1])
    others = [row for row in report.rows if row is not reference]
    good = [row for row in others if _is_faster(report, row) and (_loss(row, reference) or 0.0) <= _SMALL_LOSS]
    if good:
        best = max(good, key=lambda row: row.speedup or 0.0)
        shaky = "" if best.stable and reference.stable else " The measurement was not stable."
        return _against(report, best, reference) + shaky
    if not any(comparison_of(report, row) for row in others):
        return "No latency was compared. " + _alone(reference)
    return f"Nothing was found that is faster than {reference.name} and at most one point less accurate."


def findings(report: Report) -> list[str]:
    """One sentence for each row against the reference."""
    reference = _reference(report)
    if reference is None:
        return [_alone(row) for row in report.rows]
    return [_against(report, row, reference) for row in report.rows if row is not reference]


def cautions(report: Report) -> list[str]:
    """What a reader must know before relying on the figures."""
    found = list(report.notes)
    if report.rows and all(row.test_accuracy is None for row in report.rows):
        found.append("Nothing was evaluated on the test split: validation accuracy has seen the choice of thresholds.")
    for bench in report.benches:
        if bench.threads > 1:
            found.append(f"Measured with {bench.threads} threads: on a machine with other work this is not repeatable.")
        found += _unstable(bench)
        for record in bench.records:
            found += _mixture(record)
    machines = {(bench.machine.cpu, bench.machine.gpu) for bench in report.benches}
    if len(machines) > 1:
        found.append("The benchmarks ran on different machines: compare times only within one of them.")
    for row in report.rows:
        found += _flattering(row, comparison_of(report, row))
    for evaluation in shown(report):
        found += class_cautions(evaluation)
    return found + _unpaired(report)


def _reference(report: Report) -> ReportRow | None:
    return next((row for row in report.rows if row.name == report.reference), None)


def _is_faster(report: Report, row: ReportRow) -> bool:
    comparison = comparison_of(report, row)
    return comparison is not None and comparison.verdict == "faster"


def _loss(row: ReportRow, reference: ReportRow) -> float | None:
    for mine, theirs in (
        (row.test_accuracy, reference.test_accuracy),
        (row.validation_accuracy, reference.validation_accuracy),
    ):
        if mine is not None and theirs is not None:
            return round(theirs - mine, 9)  # 0.92 - 0.91 is more than 0.01
    return None


def _alone(row: ReportRow) -> str:
    split, value = ("test", row.test_accuracy)
    if value is None:
        split, value = ("validation", row.validation_accuracy)
    scored = "was not evaluated" if value is None else f"is right on {accuracy(value)} of the {split} split"
    timed = "" if row.mean_ms is None else f" and takes {milliseconds(row.mean_ms)} for one image in the mean"
    return f"{row.name} {scored}{timed}."


def _against(report: Report, row: ReportRow, reference: ReportRow) -> str:
    return f"{_speed(comparison_of(report, row), row, reference)}; {_quality(report, row, reference)}."


def _speed(comparison: Comparison | None, row: ReportRow, reference: ReportRow) -> str:
    if comparison is None:
        return f"{row.name}: latency not compared with {reference.name}"
    c = comparison
    mean = f"95 % interval {c.mean_low:.2f} to {c.mean_high:.2f}"
    median = f"{speedup(c.speedup_p50)} at the median ({c.low:.2f} to {c.high:.2f})"
    if c.verdict == "no difference":
        both = f"{row.name} and {reference.name}"
        return f"{both}: no difference in mean latency ({speedup(c.speedup_mean)}, {mean}), {median}"
    word = "as fast as" if c.verdict == "faster" else "the speed of (slower than)"
    return f"{row.name} is {speedup(c.speedup_mean)} {word} {reference.name} in the mean ({mean}), {median}"


def _quality(report: Report, row: ReportRow, reference: ReportRow) -> str:
    evaluations = judged(report, row, reference)
    if evaluations is None:
        return "accuracy not compared"
    mine, theirs = evaluations
    compared = accuracy_difference(mine, theirs)
    a, b = accuracy_of(mine) or 0.0, accuracy_of(theirs) or 0.0
    differs = difference(a - b) if compared is None else paired(compared)
    return (
        f"accuracy {differs} on the {mine.split} split ({accuracy(a)} against {accuracy(b)},"
        f" {count(mine.samples)} images)"
    )


def _unpaired(report: Report) -> list[str]:
    """Rows whose accuracy differs from the reference's by a figure without an interval."""
    reference, names = _reference(report), []
    for row in report.rows:
        pair = judged(report, row, reference) if reference and row is not reference else None
        if pair and accuracy_difference(*pair) is None:
            names.append(row.name)
    if not names or reference is None:
        return []
    without = f"{', '.join(names)}: the difference in accuracy from {reference.name} has no interval"
    return [f"{without}. It needs both evaluated on the same images by this version: evaluate again."]


def _unstable(bench: BenchReport) -> list[str]:
    """Each reason once, with the measurements it holds for."""
    where: dict[str, list[str]] = {}
    for record in bench.records:
        for reason in record.reasons:
            where.setdefault(reason, []).append(_where(record))
    found = []
    for reason, places in where.items():
        few = len(places) <= 3
        found.append(f"Not stable: {reason} ({'; '.join(places) if few else f'{len(places)} measurements'}).")
    return found


def _where(record: BenchRecord) -> str:
    return f"{record.name}, {record.scenario}, batch {record.batch}"


def _mixture(record: BenchRecord) -> list[str]:
    found = []
    where = _where(record)
    if record.mixture_residual is not None and abs(record.mixture_residual) > _LARGEST_RESIDUAL:
        differs = f"{where}: the mean differs by {share(record.mixture_residual)} from what the exits cost when forced"
        found.append(f"{differs}: the cost of deciding where to leave, or a machine that changed in between.")
    return found


def _flattering(row: ReportRow, comparison: Comparison | None) -> list[str]:
    if comparison is None or comparison.speedup_p50 < _MEDIAN_FLATTERS * comparison.speedup_mean:
        return []
    median, mean = speedup(comparison.speedup_p50), speedup(comparison.speedup_mean)
    why = "it is the time of the commonest exit; the mean decides the throughput"
    return [f"{row.name}: do not quote the median ({median} against {mean} in the mean): {why}."]
