"""Sentences about the figures of a report: gains, losses, and cautions, each kind of which appears once."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sdcompress.reporting.quantities import (
    capitalized,
    count,
    difference,
    enumeration,
    milliseconds,
    paired,
    score,
    share,
    speedup,
)
from sdcompress.reporting.report.rows import (
    comparison_of,
    difference_of,
    evaluation_pair,
    exits_early,
    reference_row,
    score_of,
    shown_evaluations,
)
from sdcompress.reporting.report.strata import stratum_cautions
from sdcompress.schema.report import BenchRecord, BenchReport, Comparison, Report, ReportRow

__all__ = ["cautions", "findings", "headline", "noise"]

# the largest drop of an artifact in the headline: one point, the default of calibration
_SMALL_LOSS = 0.01
_MAX_RESIDUAL = 0.10
_MISLEADING_RATIO = 1.2
_MAX_NAMED = 3
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
_ADVICE = (
    "The machine causes this, not the networks. Stop other work and measure again, for longer (--duration 30s)."
    " Speed-ups suffer less, because the networks ran in interleaved rounds."
)


def headline(report: Report) -> str:
    """Return one to three sentences: the best trade-off, or that there is none, and whether early exit is worth it."""
    reference = reference_row(report)
    if reference is None or len(report.rows) < 2:
        return " ".join(_single_row(report, row) for row in report.rows[:1])
    rivals = [row for row in report.rows if row is not reference]
    fast = [row for row in rivals if _is_faster(report, row)]
    losses = {row.name: _loss(row, reference) for row in fast}
    good = [row for row in fast if (loss := losses[row.name]) is not None and loss <= _SMALL_LOSS]
    if good:
        best = max(good, key=_speedup)
        shaky = "" if best.stable and reference.stable else " The machine was not steady; measure again."
        uncompared = [row for row in fast if losses[row.name] is None]
        return _trade(report, best, reference) + _early_exit(report, best, good, rivals, uncompared) + shaky
    if not any(comparison_of(report, row) for row in rivals):
        return "No latency was compared. " + _single_row(report, reference)
    if unknown := [row.name for row in fast if losses[row.name] is None]:
        names = f"{enumeration([*unknown, reference.name])} was not compared"
        advice = "'sdcompress evaluate' on each of them gives it."
        return f"No trade-off can be named: the {report.metric_name} of {names}. {advice}"
    return f"No artifact is faster than {reference.name} and loses at most one point of {report.metric_name}."


def _speedup(row: ReportRow) -> float:
    return row.speedup_end_to_end or row.speedup or 0.0


def _early_exit(
    report: Report,
    best: ReportRow,
    good: Sequence[ReportRow],
    rivals: Sequence[ReportRow],
    uncompared: Sequence[ReportRow],
) -> str:
    """Say what the best row with early exit gains over the best without it; empty where only one kind was measured.

    Args:
        report: of the rows.
        best: the fastest of ``good``.
        good: faster rows with a small loss.
        rivals: all rows but the reference.
        uncompared: faster rows whose loss is not known.
    """
    kinds = {row.name: exits_early(report, row) for row in rivals}
    early = kinds[best.name]
    if {*kinds.values()} != {True, False}:
        return ""

    def of_other_kind(rows: Sequence[ReportRow]) -> list[ReportRow]:
        return [row for row in rows if kinds[row.name] != early]

    others = of_other_kind(good)
    if names := [row.name for row in of_other_kind(uncompared)]:
        compared = f"the {report.metric_name} of {enumeration(names)} was not compared"
        return f" Whether early exit pays here is not known: {compared}."
    if not early and not others:
        return " Early exit does not pay here: with it nothing is faster and loses at most one point."
    if not others:
        return " Without early exit nothing is faster and loses at most one point."
    second = max(others, key=_speedup)
    if not early:
        return f" Early exit does not pay here: with it the best is {second.name}, {speedup(_speedup(second))}."
    return f" Without early exit the best is {second.name}, {speedup(_speedup(second))}."


def _trade(report: Report, best: ReportRow, reference: ReportRow) -> str:
    faster = f"{best.name} is {speedup(best.speedup)} as fast as {reference.name}"
    if best.speedup_end_to_end is not None:
        faster += f" ({speedup(best.speedup_end_to_end)} end to end)"
    paired_, lost = difference_of(report, best), _loss(best, reference) or 0.0
    if paired_ is not None and paired_.low <= 0 <= paired_.high:
        return f"{faster}; its {report.metric_name} is equal within sampling error ({difference(paired_.value)})."
    if lost == 0:
        return f"{faster} at the same {report.metric_name}."
    return f"{faster} and {'loses' if lost > 0 else 'gains'} {abs(lost) * 100:.2f} points of {report.metric_name}."


def findings(report: Report) -> list[str]:
    """Return one sentence for each row, compared with the reference."""
    reference = reference_row(report)
    if reference is None:
        return [_single_row(report, row) for row in report.rows]
    return [_compared(report, row, reference) for row in report.rows if row is not reference]


def _is_faster(report: Report, row: ReportRow) -> bool:
    comparison = comparison_of(report, row)
    return comparison is not None and comparison.verdict == "faster"


def _loss(row: ReportRow, reference: ReportRow) -> float | None:
    for value, reference_value in (
        (row.test_metric, reference.test_metric),
        (row.validation_metric, reference.validation_metric),
    ):
        if value is not None and reference_value is not None:
            return round(reference_value - value, 9)  # 0.92 - 0.91 is more than 0.01
    return None


def _single_row(report: Report, row: ReportRow) -> str:
    split, value = ("test", row.test_metric)
    if value is None:
        split, value = ("validation", row.validation_metric)
    scored = "was not evaluated" if value is None else f"has {score(value)} {report.metric_name} on the {split} split"
    timed = "" if row.mean_ms is None else f" and takes {milliseconds(row.mean_ms)} for one sample in the mean"
    return f"{row.name} {scored}{timed}."


def _compared(report: Report, row: ReportRow, reference: ReportRow) -> str:
    return f"{_speed(comparison_of(report, row), row, reference)}. {_quality(report, row, reference)}."


def _speed(comparison: Comparison | None, row: ReportRow, reference: ReportRow) -> str:
    if comparison is None:
        return f"{row.name}: latency not compared with {reference.name}"
    c = comparison
    run, end_to_end = f"95 % interval {c.mean_low:.2f} to {c.mean_high:.2f}", ""
    if c.speedup_end_to_end is not None and c.end_to_end_low is not None and c.end_to_end_high is not None:
        ends = f"{c.end_to_end_low:.2f} to {c.end_to_end_high:.2f}"
        end_to_end = f"; end to end {speedup(c.speedup_end_to_end)} ({ends})"
    if c.verdict == "no difference":
        both = f"{row.name} and {reference.name}"
        return f"{both}: no difference in the mean time of a run ({speedup(c.speedup_mean)}, {run}){end_to_end}"
    word = "as fast as" if c.verdict == "faster" else "the speed of (slower than)"
    return f"{row.name} is {speedup(c.speedup_mean)} {word} {reference.name} ({run}){end_to_end}"


def _quality(report: Report, row: ReportRow, reference: ReportRow) -> str:
    evaluations = evaluation_pair(report, row, reference)
    if evaluations is None:
        return f"{capitalized(report.metric_name)} not compared"
    evaluation, reference_evaluation = evaluations
    compared = difference_of(report, row)
    a, b = score_of(evaluation) or 0.0, score_of(reference_evaluation) or 0.0
    differs = difference(a - b) if compared is None else paired(compared)
    return (
        f"{capitalized(report.metric_name)} {differs} on the {evaluation.split} split ({score(a)} against {score(b)},"
        f" {count(evaluation.samples)} samples)"
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
        sentences += [*_backends(bench), *_mixtures(bench)]
    machines = {(bench.machine.cpu, bench.machine.gpu) for bench in report.benches}
    if len(machines) > 1:
        sentences.append("The benchmarks ran on different machines. Compare times only within one of them.")
    return [*sentences, *_misleading_medians(report), *_strata(report), *_unpaired(report)]


def _backends(bench: BenchReport) -> list[str]:
    """Say which of several backends the rows have the times of."""
    first, *others = bench.backend.split(",")
    if not others:
        return []
    return [f"The rows have the times on {first}. The table of latencies has those on {enumeration(others)}."]


def _mixtures(bench: BenchReport) -> list[str]:
    """Name cascades whose mean time is not the weighted sum of the times of their exits."""
    residuals = {
        f"{record.name} by {share(record.mixture_residual)}": abs(record.mixture_residual)
        for record in bench.records
        if record.mixture_residual is not None and abs(record.mixture_residual) > _MAX_RESIDUAL
    }
    if not residuals:
        return []
    cause = "decisions take time, exits that no sample takes have no head, or the machine changed in between"
    named = _first_names(sorted(residuals, key=lambda name: -residuals[name]))
    return [f"The mean differs from the weighted sum of the forced exits ({named}): {cause}."]


def _misleading_medians(report: Report) -> list[str]:
    """Name cascades whose median is the time of their commonest exit."""
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
    """Return each kind of warning about strata once, for its first network, with the names of the others."""
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
    """Name rows whose difference from the reference has no interval."""
    reference = reference_row(report)
    if reference is None:
        return []
    compared = [row for row in report.rows if row is not reference and evaluation_pair(report, row, reference)]
    names = [row.name for row in compared if difference_of(report, row) is None]
    if not names:
        return []
    without = f"{_first_names(names)}: the difference in {report.metric_name} from {reference.name} has no interval"
    return [f"{without}. Evaluate both on the same samples with this version."]


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
