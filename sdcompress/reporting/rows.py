"""Find in a report what belongs to a row: its evaluations, its latency, its comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

from sdcompress.evaluation.paired import accuracy_difference
from sdcompress.schema.base import Interval
from sdcompress.schema.report import ENSEMBLE, BenchRecord, Comparison, Evaluation, ExitScore, Report, ReportRow

__all__ = [
    "ENSEMBLE",
    "accuracy_of",
    "comparison_of",
    "difference_of",
    "evaluation_of",
    "judged",
    "own_exits",
    "record_of",
    "same",
    "shown",
]

_Measured = TypeVar("_Measured", Evaluation, BenchRecord)


def same(row: ReportRow, name: str, digest: str | None) -> bool:
    """Whether a row and something measured are the same artifact: by digest where both have one, else by name."""
    return row.digest == digest if row.digest and digest else row.name == name


def evaluation_of(report: Report, row: ReportRow, split: Literal["test", "validation"]) -> Evaluation | None:
    """The latest evaluation of a row on a split."""
    return _latest(row, [evaluation for evaluation in report.evaluations if evaluation.split == split])


def accuracy_of(evaluation: Evaluation | None) -> float | None:
    """What a user of the artifact gets: the policy's accuracy if it has one, else the last exit's."""
    if evaluation is None:
        return None
    return evaluation.policy.accuracy if evaluation.policy else own_exits(evaluation)[-1].accuracy


def judged(report: Report, row: ReportRow, other: ReportRow) -> tuple[Evaluation, Evaluation] | None:
    """The evaluations by which two rows are compared: on the test split if both have one, else on validation."""
    splits: tuple[Literal["test", "validation"], ...] = ("test", "validation")
    for split in splits:
        mine, theirs = evaluation_of(report, row, split), evaluation_of(report, other, split)
        if mine is not None and theirs is not None:
            return mine, theirs
    return None


def difference_of(report: Report, row: ReportRow) -> Interval | None:
    """The accuracy of a row less the reference's, paired; None for the reference, and where they cannot be paired."""
    reference = next((other for other in report.rows if other.name == report.reference), None)
    pair = judged(report, row, reference) if reference is not None and row is not reference else None
    return accuracy_difference(*pair) if pair else None


def shown(report: Report) -> list[Evaluation]:
    """For each row the evaluation that counts: on the test split if there is one."""
    found = [evaluation_of(report, row, "test") or evaluation_of(report, row, "validation") for row in report.rows]
    return [evaluation for evaluation in found if evaluation is not None]


def own_exits(evaluation: Evaluation) -> list[ExitScore]:
    """The exits without the ensemble of them all."""
    return [exit_ for exit_ in evaluation.exits if exit_.name != ENSEMBLE]


def record_of(
    report: Report, row: ReportRow, scenario: Literal["single-stream", "offline"] = "single-stream"
) -> BenchRecord | None:
    """The latest measurement of a row in a scenario."""
    records = [record for bench in report.benches for record in bench.records if record.scenario == scenario]
    return _latest(row, records)


def comparison_of(report: Report, row: ReportRow) -> Comparison | None:
    """The latest single-stream comparison of a row with the report's reference."""
    found = [comparison for bench in report.benches for comparison in bench.comparisons]
    return next(
        (
            c
            for c in reversed(found)
            if c.scenario == "single-stream" and c.name == row.name and c.reference == report.reference
        ),
        None,
    )


def _latest(row: ReportRow, measured: Sequence[_Measured]) -> _Measured | None:
    """The latest that belongs to a row; one of its own name first, where an artifact was measured under two."""
    fitting = [item for item in measured if same(row, item.name, item.digest)]
    own = [item for item in fitting if item.name == row.name]
    return next(reversed(own or fitting), None)
