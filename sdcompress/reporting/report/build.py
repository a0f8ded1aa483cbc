"""Build a report from evaluations and benchmarks, with one row for each artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.certification.groups import group_name
from sdcompress.errors import UnknownNameError, UsageError
from sdcompress.reporting.report.rows import comparison_of, evaluation_of, measured_as, own_exits, record_of, score_of
from sdcompress.schema.manifest import Manifest
from sdcompress.schema.report import BenchRecord, BenchReport, Evaluation, Report, ReportRow
from sdcompress.tasks import task_of

__all__ = ["build"]


def build(
    *,
    title: str,
    command: str,
    artifacts: Mapping[str, Artifact | Path | str],
    evaluations: Sequence[Evaluation] = (),
    benches: Sequence[BenchReport] = (),
    recipe: Mapping[str, Any] | None = None,
    training: Mapping[str, Sequence[Mapping[str, float]]] | None = None,
    reference: str | None = None,
    notes: Sequence[str] = (),
) -> Report:
    """Build a report.

    Args:
        title: of the report.
        command: what the user typed.
        artifacts: folders by row name, in the order of the table. An evaluation or benchmark belongs to the row with
            its digest, or with its name if it has no digest.
        evaluations: of artifacts and checkpoints, on any split.
        benches: benchmark reports of these artifacts.
        recipe: the resolved recipe.
        training: metrics.jsonl of each run, by name.
        reference: the row that the others are compared with; default: the reference of the last benchmark.
        notes: further sentences for the report.

    Raises:
        UnknownNameError: if the reference is not a row.
        ArtifactError: if a folder is not an intact artifact.
        UsageError: if an evaluation has other exits than its artifact.
    """
    manifests = {name: open_artifact(path).manifest for name, path in artifacts.items()}
    bare_rows = tuple(_bare_row(name, manifest) for name, manifest in manifests.items())
    reference = reference or _compared_with(benches, bare_rows)
    if reference is not None and reference not in artifacts:
        raise UnknownNameError("rows of this report", reference, artifacts)
    bare = Report(
        title=title,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=command,
        recipe=None if recipe is None else dict(recipe),
        metric_name=_metric(manifests, evaluations),
        reference=reference,
        rows=bare_rows,
        evaluations=tuple(evaluations),
        benches=tuple(benches),
        training={name: tuple(dict(line) for line in lines) for name, lines in (training or {}).items()},
        notes=tuple(notes),
    )
    rows = tuple(_fill(bare, row, manifests[row.name]) for row in bare.rows)
    return bare.model_copy(update={"rows": rows})


def _metric(manifests: Mapping[str, Manifest], evaluations: Sequence[Evaluation]) -> str:
    """Return the metric of all rows.

    Raises:
        UsageError: if they have several: their scores cannot be compared.
    """
    metrics = {task_of(manifest).metric for manifest in manifests.values()} | {one.metric_name for one in evaluations}
    if len(metrics) > 1:
        raise UsageError(
            f"The networks of this report are scored by {' and '.join(sorted(metrics))}.",
            allowed="networks of one task",
            next_step="make a report for each task",
        )
    return next(iter(metrics), "metric")


def _compared_with(benches: Sequence[BenchReport], rows: Sequence[ReportRow]) -> str | None:
    """Return the row that the last benchmark compares with; its name there where no row is meant."""
    compared = [(bench, comparison.reference) for bench in benches for comparison in bench.comparisons]
    if not compared:
        return None
    bench, name = compared[-1]
    return next((row.name for row in rows if measured_as(bench, row) == name), name)


def _bare_row(name: str, manifest: Manifest) -> ReportRow:
    return ReportRow(
        name=name,
        layout=manifest.layout,
        digest=manifest.digest,
        guarantee=_guarantee(manifest),
        test_metric=None,
        validation_metric=None,
        macs=None,
        parameters=sum(segment.parameters for segment in manifest.segments),
        bytes=sum(segment.bytes for segment in manifest.segments),
        p50_ms=None,
        p99_ms=None,
        speedup=None,
    )


def _guarantee(manifest: Manifest) -> str | None:
    if manifest.policy is None:
        return None
    if manifest.certificate is None or manifest.policy.guarantee != "certified":
        return manifest.policy.guarantee
    target_risk, confidence = 100 * manifest.policy.max_drop, 100 * manifest.certificate.confidence
    loss_name = "" if manifest.certificate.loss == "drop" else " disagreement"
    group = group_name(manifest.certificate.group_by, task_of(manifest))
    group_text = "" if group is None else f" {'by' if group == 'exit' else 'in'} every {group}"
    reference = f" against {manifest.certificate.reference[:12]}" if manifest.certificate.reference else ""
    return f"at most {target_risk:.4g} %{loss_name}{group_text}{reference}, {confidence:.4g} % sure"


def _fill(report: Report, row: ReportRow, manifest: Manifest) -> ReportRow:
    test, validation = evaluation_of(report, row, "test"), evaluation_of(report, row, "validation")
    record, comparison = record_of(report, row), comparison_of(report, row)
    for evaluation in (test, validation):
        _check_fits(evaluation, row, manifest)
    shares = next(
        (evaluation.policy.shares for evaluation in (test, validation) if evaluation and evaluation.policy), None
    )
    return row.model_copy(
        update={
            "test_metric": score_of(test),
            "validation_metric": score_of(validation),
            "macs": _mean_macs(manifest, shares),
            "p50_ms": _percentile(record, 50.0),
            "p99_ms": _percentile(record, 99.0),
            "mean_ms": record and record.latency.mean_ms,
            "preparation_ms": record and record.preparation and record.preparation.mean_ms,
            "end_to_end_ms": record and record.end_to_end_ms,
            "stable": record and record.stable,
            "speedup": comparison and comparison.speedup_mean,
            "speedup_low": comparison and comparison.mean_low,
            "speedup_high": comparison and comparison.mean_high,
            "speedup_end_to_end": comparison and comparison.speedup_end_to_end,
            "end_to_end_low": comparison and comparison.end_to_end_low,
            "end_to_end_high": comparison and comparison.end_to_end_high,
        }
    )


def _check_fits(evaluation: Evaluation | None, row: ReportRow, manifest: Manifest) -> None:
    """Refuse an evaluation with the name of a row and the exits of another artifact."""
    if evaluation and evaluation.kind == "artifact" and len(own_exits(evaluation)) != len(manifest.exits):
        raise UsageError(
            f"The evaluation of '{evaluation.name}' on {evaluation.split} has {len(own_exits(evaluation))} exits.",
            allowed=f"{len(manifest.exits)}, which the artifact '{row.name}' has",
            next_step="evaluate this artifact again",
        )


def _mean_macs(manifest: Manifest, shares: Sequence[float] | None) -> float:
    """Return the mean MACs of one sample over the exits, or of all segments without early exit."""
    total = float(sum(segment.macs for segment in manifest.segments))
    if shares is None and manifest.policy is not None:
        shares = manifest.policy.shares
    if manifest.layout != "cascade" or manifest.policy is None or shares is None:
        return total
    until = [sum(segment.macs for segment in manifest.segments[: exit_.segment + 1]) for exit_ in manifest.exits]
    return float(sum(share * macs for share, macs in zip(shares, until, strict=True)))


def _percentile(record: BenchRecord | None, percent: float) -> float | None:
    percentiles = record.latency.percentiles if record else ()
    return next((p.value_ms for p in percentiles if p.percent == percent), None)
