"""The tables of a report as text, shared by Markdown and HTML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sdcompress.reporting import quantities as q
from sdcompress.reporting.page import Table
from sdcompress.reporting.report.rows import (
    Split,
    comparison_of,
    difference_of,
    error_of,
    evaluation_of,
    record_of,
    shown_evaluation,
    shown_evaluations,
    shown_split,
)
from sdcompress.reporting.report.strata import worst_stratum
from sdcompress.schema.report import ENSEMBLE, BenchRecord, Evaluation, Report, ReportRow

__all__ = ["comparisons", "exits", "further", "latencies", "networks", "summary", "title_of"]


class _Further(NamedTuple):
    """Title, format and note of a further metric of a task."""

    title: str
    format: str
    note: str


_FURTHER = {
    "nll": _Further("NLL", "{:.3f}", "NLL in nats"),
    "ece": _Further("ECE", "{:.1%}", "ECE with 15 equal-width bins"),
}


def further(name: str, value: float) -> str:
    """Format a further metric of a task; an unknown one gets three digits."""
    return _FURTHER[name].format.format(value).replace("%", " %") if name in _FURTHER else f"{value:.3g}"


def title_of(name: str) -> str:
    """Return the heading of a further metric: NLL, ECE, or the name that the task gives."""
    return _FURTHER[name].title if name in _FURTHER else name


def summary(report: Report) -> Table:
    """Return one line for each artifact with its metric and speed."""
    split = shown_split(report)
    reference = report.reference or "the reference"
    prepared = any(row.end_to_end_ms is not None for row in report.rows)
    with_it = " End to end: including the preparation of the input." if prepared else ""
    note = (
        f"{q.capitalized(report.metric_name)} with its 95 % interval; its difference from {reference}'s with the"
        " paired one."
        f" Run: mean of one sample at a time, from a prepared input to the prediction.{with_it}"
        f" Speed-ups over {reference} with 95 % bootstrap intervals over the interleaved rounds; above 1 is faster."
    )
    columns = (
        *("artifact", f"{split} {report.metric_name}", "difference", "run", "end to end"),
        *("speed-up of the run", "speed-up end to end"),
    )
    rows = tuple(_summary_row(report, row, split) for row in report.rows)
    return Table("Summary", columns, rows, note).without_empty_columns()


def _summary_row(report: Report, row: ReportRow, split: Split) -> tuple[str, ...]:
    evaluation = evaluation_of(report, row, split)
    return (
        _named(report, row),
        q.score(
            row.test_metric if split == "test" else row.validation_metric,
            evaluation.samples if evaluation else None,
            error_of(evaluation) if evaluation else None,
        ),
        q.paired_cell(difference_of(report, row)),
        q.milliseconds(row.mean_ms),
        q.milliseconds(row.end_to_end_ms),
        q.speedup(row.speedup, row.speedup_low, row.speedup_high),
        q.speedup(row.speedup_end_to_end, row.end_to_end_low, row.end_to_end_high),
    )


def _named(report: Report, row: ReportRow) -> str:
    reference = " (reference)" if row.name == report.reference else ""
    return row.name + reference + (" (not steady)" if row.stable is False else "")


def networks(report: Report) -> list[Table]:
    """Return the other properties and times of each artifact."""
    columns = (
        "artifact",
        "layout",
        "guaranteed drop",
        f"validation {report.metric_name}",
        f"balanced {report.metric_name}",
        f"worst {next((e.stratum for e in shown_evaluations(report) if e.stratum), 'stratum')}",
        "MACs",
        "parameters",
        "ONNX size",
    )
    note = "MACs for one sample, on average over the exits."
    networks_table = Table("Each network", columns, tuple(_network_row(report, row) for row in report.rows), note)
    time_columns = ("artifact", "preparation, mean", "run, mean", "run, p50", "run, p99", "speed-up (p50)")
    times = Table("Times of one sample", time_columns, tuple(_time_row(report, row) for row in report.rows))
    timed = any(row.mean_ms is not None for row in report.rows)
    return [table.without_empty_columns() for table in ((networks_table, times) if timed else (networks_table,))]


def _network_row(report: Report, row: ReportRow) -> tuple[str, ...]:
    validation, judged_on = evaluation_of(report, row, "validation"), shown_evaluation(report, row)
    worst = worst_stratum(judged_on) if judged_on else None
    return (
        row.name,
        row.layout,
        row.guarantee or q.NOTHING,
        q.score(
            row.validation_metric,
            validation.samples if validation else None,
            error_of(validation) if validation else None,
        ),
        q.score(judged_on.balanced_metric if judged_on else None),
        f"{worst.name}: {q.score(worst.metric)}" if worst else q.NOTHING,
        q.short_count(row.macs),
        q.short_count(row.parameters),
        q.megabytes(row.bytes),
    )


def _time_row(report: Report, row: ReportRow) -> tuple[str, ...]:
    record, comparison = record_of(report, row), comparison_of(report, row)
    p99 = next((p for p in record.latency.percentiles if p.percent == 99.0), None) if record else None
    return (
        row.name,
        q.milliseconds(row.preparation_ms),
        q.milliseconds(row.mean_ms),
        q.milliseconds(row.p50_ms),
        q.milliseconds(row.p99_ms) if row.p99_ms is not None or p99 is None else f"n/a (needs {p99.needs} calls)",
        q.speedup(comparison.speedup_p50, comparison.low, comparison.high) if comparison else q.NOTHING,
    )


def exits(report: Report) -> list[Table]:
    """Return one table of exits for each evaluated network with several."""
    tables = []
    for evaluation in report.evaluations:
        if len(evaluation.exits) < 2:
            continue
        title = f"Exits of {evaluation.name} ({evaluation.kind}), {evaluation.split} split of {evaluation.data}"
        names = list(evaluation.exits[0].further)
        notes = [f"; {_FURTHER[name].note}" for name in names if name in _FURTHER]
        note = f"{q.count(evaluation.samples)} samples{''.join(notes)}."
        if evaluation.policy:
            policy = evaluation.policy
            score = q.score(policy.metric, evaluation.samples, policy.standard_error)
            note += f" The early-exit policy as it runs: {score}."
        titles = [title_of(name) for name in names]
        metric = evaluation.metric_name
        columns = (
            "exit",
            f"{metric} of all",
            "balanced",
            *titles,
            "exit here",
            f"{metric} of those",
            "MACs",
            "parameters",
        )
        tables.append(Table(title, columns, tuple(_exit_rows(evaluation, names)), note).without_empty_columns())
    return tables


def _exit_rows(evaluation: Evaluation, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return a row for each exit, with the further metrics of these names."""
    rows: list[tuple[str, ...]] = []
    for index, exit_ in enumerate(evaluation.exits):
        policy = evaluation.policy if exit_.name != ENSEMBLE else None
        rows.append(
            (
                exit_.name,
                q.score(exit_.metric, evaluation.samples, exit_.standard_error),
                q.score(exit_.balanced_metric),
                *(further(name, exit_.further[name]) if name in exit_.further else q.NOTHING for name in names),
                q.share(policy.shares[index]) if policy else q.NOTHING,
                q.score(policy.metric_by_exit[index]) if policy else q.NOTHING,
                q.short_count(exit_.macs),
                q.short_count(exit_.parameters),
            )
        )
    return rows


def latencies(report: Report) -> list[Table]:
    """Return one table for each benchmark, and one for the exits of each cascade."""
    tables = []
    for bench in report.benches:
        note = (
            f"{bench.input}. {q.threads(bench.threads)}, {bench.backend} on {bench.device}; warm-up of at least"
            f" {bench.warmup_ms:.0f} ms and 10 calls; {bench.duration_s:g} s measured for each line; closed loop,"
            " nothing trimmed. Percentiles with their 99 % order-statistic intervals, of the run alone."
        )
        if bench.clock == "thread":
            note += " Times are processor time of the thread: what other work delays does not count."
        if bench.preparation:
            note += f" Preparation: {bench.preparation}."
        percents = [p.percent for p in bench.records[0].latency.percentiles] if bench.records else []
        columns = (
            *("artifact", "scenario", "batch", "calls", "preparation", "run, mean", "end to end"),
            *(*(f"p{percent:g}" for percent in percents), "max", "over 3 medians", "samples/s, run"),
            *("samples/s, end to end", report.metric_name, "load", "first call", "steady"),
        )
        rows = tuple(_latency_row(record) for record in bench.records)
        tables.append(Table(f"Latency, {bench.created}", columns, rows, note).without_empty_columns())
        tables += [_exit_latency(record) for record in bench.records if record.exits]
    return tables


def _latency_row(record: BenchRecord) -> tuple[str, ...]:
    latency = record.latency
    return (
        record.name,
        record.scenario,
        str(record.batch),
        q.count(latency.samples),
        q.milliseconds(record.preparation.mean_ms if record.preparation else None),
        q.milliseconds(latency.mean_ms),
        q.milliseconds(record.end_to_end_ms),
        *(q.percentile(value) for value in latency.percentiles),
        q.milliseconds(latency.max_ms),
        q.count(latency.over_three_medians),
        q.rate(record.samples_per_second),
        q.rate(1000 * record.batch / record.end_to_end_ms) if record.end_to_end_ms else q.NOTHING,
        q.score(record.metric),
        q.milliseconds(record.load_ms),
        q.milliseconds(record.first_ms),
        "yes" if record.stable else "no",
    )


def _exit_latency(record: BenchRecord) -> Table:
    worst = record.worst_path
    note = "Forced: every sample exits there, and no policy score is computed. "
    if worst:
        p99 = next((q.percentile(p) for p in worst.percentiles if p.percent == 99.0), q.NOTHING)
        note += f"Worst path (all to the last exit): mean {q.milliseconds(worst.mean_ms)}, p99 {p99}. "
    if record.mixture_residual is not None:
        note += (
            f"The mean is {record.mixture_residual * 100:+.1f} % from what the same inputs take when they are forced to"
            " their exits (the sum of share x forced mean): decisions add time, heads that are left out save it. "
        )
    if sentence := prediction(record):
        note += (
            f"{q.capitalized(sentence)}. If only the second fits, the exit shares of the data have changed. Predictions"
            " are of the machine, the threads and the wall clock of the calibration."
        )
    rows = tuple(
        (
            timing.name,
            q.share(timing.share),
            q.milliseconds(timing.p50_ms),
            q.milliseconds(timing.mean_ms),
            q.milliseconds(timing.forced_p50_ms),
            q.milliseconds(timing.forced_mean_ms),
        )
        for timing in record.exits
    )
    columns = ("exit", "exit here", "p50 of those", "mean of those", "p50 forced", "mean forced")
    return Table(f"Exits of {record.name}, one sample", columns, rows, note).without_empty_columns()


def prediction(record: BenchRecord) -> str | None:
    """Return a sentence about the mean that calibration predicted, beside the measured one; None without a policy."""
    predicted, at_shares, mean = record.predicted_ms, record.predicted_at_shares_ms, record.latency.mean_ms
    if predicted is None or at_shares is None:
        return None
    return (
        f"calibration predicted a mean of {q.milliseconds(predicted)}, {predicted / mean:.2f} of the measured, and "
        f"{q.milliseconds(at_shares)} ({at_shares / mean:.2f}) at the exit shares of this run"
    )


def comparisons(report: Report) -> list[Table]:
    """Return the comparisons of every benchmark."""
    columns = (
        "artifact",
        "reference",
        "scenario",
        "batch",
        "speed-up (mean)",
        "speed-up (p50)",
        "speed-up end to end",
        "rounds",
        "verdict on the mean",
    )
    return [
        Table(
            "Compared in interleaved rounds",
            columns,
            tuple(
                (
                    *(c.name, c.reference, c.scenario, str(c.batch)),
                    q.speedup(c.speedup_mean, c.mean_low, c.mean_high),
                    q.speedup(c.speedup_p50, c.low, c.high),
                    q.speedup(c.speedup_end_to_end, c.end_to_end_low, c.end_to_end_high),
                    *(str(c.rounds), c.verdict),
                )
                for c in bench.comparisons
            ),
            "Above 1 is faster. 'No difference' if the 95 % interval contains 1.",
        ).without_empty_columns()
        for bench in report.benches
        if bench.comparisons
    ]
