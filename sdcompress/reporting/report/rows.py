"""Look up the evaluations, measurements and comparisons that belong to a row of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

from sdcompress.evaluation.paired import metric_difference
from sdcompress.schema.base import Interval
from sdcompress.schema.report import (
    ENSEMBLE,
    BenchRecord,
    BenchReport,
    Comparison,
    Evaluation,
    ExitEvaluation,
    Report,
    ReportRow,
)

__all__ = [
    "Split",
    "comparison_of",
    "difference_of",
    "error_of",
    "evaluation_of",
    "evaluation_pair",
    "exits_early",
    "is_same_artifact",
    "measured_as",
    "own_exits",
    "record_of",
    "reference_row",
    "score_of",
    "shown_evaluation",
    "shown_evaluations",
    "shown_split",
]

Split = Literal["test", "validation"]

_SPLITS: tuple[Split, ...] = ("test", "validation")
_Measured = TypeVar("_Measured", Evaluation, BenchRecord)


def is_same_artifact(row: ReportRow, name: str, digest: str | None) -> bool:
    """Whether a row and a measurement are of the same artifact: by digest if both have one, else by name."""
    return row.digest == digest if row.digest and digest else row.name == name


def evaluation_of(report: Report, row: ReportRow, split: Split) -> Evaluation | None:
    """Return the latest evaluation of a row on a split."""
    return _latest(row, [evaluation for evaluation in report.evaluations if evaluation.split == split])


def score_of(evaluation: Evaluation | None) -> float | None:
    """Return the metric of the policy if there is one, else that of the last exit."""
    if evaluation is None:
        return None
    return (evaluation.policy or own_exits(evaluation)[-1]).metric


def error_of(evaluation: Evaluation) -> float | None:
    """Return the standard error of ``score_of``; None if it is a proportion."""
    return (evaluation.policy or own_exits(evaluation)[-1]).standard_error


def reference_row(report: Report) -> ReportRow | None:
    """Return the row that the others are compared with; None if there is none."""
    return next((row for row in report.rows if row.name == report.reference), None)


def evaluation_pair(report: Report, row: ReportRow, other: ReportRow) -> tuple[Evaluation, Evaluation] | None:
    """Return the evaluations that compare two rows: on the test split if both have one, else on validation."""
    for split in _SPLITS:
        first, second = evaluation_of(report, row, split), evaluation_of(report, other, split)
        if first is not None and second is not None:
            return first, second
    return None


def difference_of(report: Report, row: ReportRow) -> Interval | None:
    """Return the paired difference of a row from the reference, or None if it cannot be paired."""
    reference = reference_row(report)
    pair = evaluation_pair(report, row, reference) if reference is not None and row is not reference else None
    return metric_difference(*pair) if pair else None


def shown_split(report: Report) -> Split:
    """Return the split whose metric the summary shows: the test split if any row was evaluated on it."""
    return "test" if any(row.test_metric is not None for row in report.rows) else "validation"


def shown_evaluation(report: Report, row: ReportRow) -> Evaluation | None:
    """Return the evaluation of a row on the test split if there is one, else on validation."""
    return evaluation_of(report, row, "test") or evaluation_of(report, row, "validation")


def shown_evaluations(report: Report) -> list[Evaluation]:
    """Return ``shown_evaluation`` of each row that has one."""
    return [evaluation for row in report.rows if (evaluation := shown_evaluation(report, row)) is not None]


def exits_early(report: Report, row: ReportRow) -> bool:
    """Return whether samples of a row exit before the last exit; a policy that was not evaluated counts as if."""
    evaluation = shown_evaluation(report, row)
    policy = evaluation.policy if evaluation else None
    return row.guarantee is not None and (policy is None or policy.shares[-1] < 1)


def own_exits(evaluation: Evaluation) -> list[ExitEvaluation]:
    """Return the exits without the ensemble."""
    return [exit_ for exit_ in evaluation.exits if exit_.name != ENSEMBLE]


def record_of(report: Report, row: ReportRow) -> BenchRecord | None:
    """Return the latest single-stream measurement of a row, on the first of several backends."""
    records: list[BenchRecord] = []
    for bench in report.benches:
        measured = measured_as(bench, row), "single-stream"
        records += [record for record in bench.records if (record.name, record.scenario) == measured]
    return _latest(row, records)


def measured_as(bench: BenchReport, row: ReportRow) -> str:
    """Return the name of a row in a benchmark: its own, else that of its artifact on the first backend."""
    names = [record.name for record in bench.records if is_same_artifact(row, record.name, record.digest)]
    return names[0] if names and row.name not in names else row.name


def comparison_of(report: Report, row: ReportRow) -> Comparison | None:
    """Return the latest single-stream comparison of a row with the reference of the report."""
    reference = reference_row(report)
    if reference is None:
        return None
    for bench in reversed(report.benches):
        compared = measured_as(bench, row), measured_as(bench, reference), "single-stream"
        for comparison in reversed(bench.comparisons):
            if (comparison.name, comparison.reference, comparison.scenario) == compared:
                return comparison
    return None


def _latest(row: ReportRow, measured: Sequence[_Measured]) -> _Measured | None:
    """Return the latest record of a row. A record with the name of the row comes first."""
    fitting = [item for item in measured if is_same_artifact(row, item.name, item.digest)]
    same_name = [item for item in fitting if item.name == row.name]
    return next(reversed(same_name or fitting), None)
