"""Sentences computed from the figures of a report, on gains and losses alike."""

from __future__ import annotations

from sdcompress.reporting.quantities import count, difference, enumeration, milliseconds, paired, score, speedup
from sdcompress.reporting.rows import comparison_of, difference_of, evaluation_pair, score_of
from sdcompress.schema.report import Comparison, Report, ReportRow

__all__ = ["findings", "headline"]

# the largest drop of an artifact in the headline: one point, the default of calibration
_SMALL_LOSS = 0.01


def headline(report: Report) -> str:
    """Return one or two sentences on the best trade-off, or that there is none."""
    reference = _reference(report)
    if reference is None or len(report.rows) < 2:
        return " ".join(_single_row(row) for row in report.rows[:1])
    rivals = [row for row in report.rows if row is not reference]
    fast = [row for row in rivals if _is_faster(report, row)]
    losses = {row.name: _loss(row, reference) for row in fast}
    good = [row for row in fast if (loss := losses[row.name]) is not None and loss <= _SMALL_LOSS]
    if good:
        best = max(good, key=lambda row: row.speedup_end_to_end or row.speedup or 0.0)
        shaky = "" if best.stable and reference.stable else " The machine was not steady; measure again."
        return _trade(report, best, reference) + shaky
    if not any(comparison_of(report, row) for row in rivals):
        return "No latency was compared. " + _single_row(reference)
    if unknown := [row.name for row in fast if losses[row.name] is None]:
        names = f"{enumeration([*unknown, reference.name])} was not compared"
        advice = "'sdcompress evaluate' on each of them gives it."
        return f"No trade-off can be named: the {report.metric_name} of {names}. {advice}"
    return f"Nothing was found that is faster than {reference.name} and at most one point less accurate."


def _trade(report: Report, best: ReportRow, reference: ReportRow) -> str:
    faster = f"{best.name} is {speedup(best.speedup)} as fast as {reference.name}"
    if best.speedup_end_to_end is not None:
        faster += f" ({speedup(best.speedup_end_to_end)} end to end)"
    paired_, lost = difference_of(report, best), _loss(best, reference) or 0.0
    if paired_ is not None and paired_.low <= 0 <= paired_.high:
        return f"{faster} and as accurate within sampling error ({difference(paired_.value)})."
    if lost == 0:
        return f"{faster} at the same {report.metric_name}."
    return f"{faster} and {'loses' if lost > 0 else 'gains'} {abs(lost) * 100:.2f} points of {report.metric_name}."


def findings(report: Report) -> list[str]:
    """Return one sentence for each row, compared with the reference."""
    reference = _reference(report)
    if reference is None:
        return [_single_row(row) for row in report.rows]
    return [_compared(report, row, reference) for row in report.rows if row is not reference]


def _reference(report: Report) -> ReportRow | None:
    return next((row for row in report.rows if row.name == report.reference), None)


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


def _single_row(row: ReportRow) -> str:
    split, value = ("test", row.test_metric)
    if value is None:
        split, value = ("validation", row.validation_metric)
    scored = "was not evaluated" if value is None else f"is right on {score(value)} of the {split} split"
    timed = "" if row.mean_ms is None else f" and takes {milliseconds(row.mean_ms)} for one image in the mean"
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
        return f"{report.metric_name.capitalize()} not compared"
    evaluation, reference_evaluation = evaluations
    compared = difference_of(report, row)
    a, b = score_of(evaluation) or 0.0, score_of(reference_evaluation) or 0.0
    differs = difference(a - b) if compared is None else paired(compared)
    return (
        f"{report.metric_name.capitalize()} {differs} on the {evaluation.split} split ({score(a)} against {score(b)},"
        f" {count(evaluation.samples)} images)"
    )
