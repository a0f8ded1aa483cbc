"""A report from artifacts: what belongs to which row, and the mean cost of an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdcompress.artifact.read import open_artifact
from sdcompress.errors import UnknownNameError
from sdcompress.reporting.report.build import build
from sdcompress.reporting.report.findings import cautions
from sdcompress.schema.report import BenchReport, Evaluation, Report


@pytest.fixture
def report(folders: dict[str, Path], evaluations: list[Evaluation], benches: list[BenchReport]) -> Report:
    return build(title="t", command="c", artifacts=folders, evaluations=evaluations, benches=benches)


def test_rows_hold_what_was_measured_of_them(report: Report) -> None:
    reference_row, chain = report.rows
    assert (reference_row.name, reference_row.layout, reference_row.parameters, reference_row.bytes) == (
        "whole",
        "single",
        500,
        1000,
    )
    assert (reference_row.test_metric, reference_row.validation_metric, reference_row.macs) == (0.92, None, 40e6)
    assert reference_row.p50_ms == pytest.approx(4.005, abs=0.002)
    assert reference_row.p99_ms is not None
    assert (reference_row.speedup, reference_row.stable) == (None, True)
    assert (chain.parameters, chain.bytes, chain.p50_ms, chain.p99_ms) == (1000, 2000, 1.0, None)
    assert chain.test_metric == 0.91  # of the policy, not of the last exit, not of the ensemble
    assert chain.mean_ms == pytest.approx(1.75)
    assert (chain.speedup, chain.speedup_low, chain.speedup_high) == pytest.approx((2.29, 2.25, 2.33))
    assert (chain.preparation_ms, chain.end_to_end_ms) == pytest.approx((0.5, 2.25))
    assert (chain.speedup_end_to_end, chain.end_to_end_low, chain.end_to_end_high) == (2.0, 1.97, 2.03)
    assert report.reference == "whole"


def test_the_mean_macs_are_weighted_by_the_shares_of_the_test_split(report: Report) -> None:
    assert report.rows[1].macs == pytest.approx(0.75 * 10e6 + 0.25 * 40e6)


def test_without_an_evaluation_the_shares_of_the_calibration_count(folders: dict[str, Path]) -> None:
    report = build(title="t", command="c", artifacts=folders)
    assert report.rows[1].macs == pytest.approx(0.5 * 10e6 + 0.5 * 40e6)
    assert report.rows[1].test_metric is None
    assert report.reference is None


def test_an_evaluation_of_another_artifact_with_the_same_name_is_not_taken(
    folders: dict[str, Path], evaluations: list[Evaluation]
) -> None:
    foreign = evaluations[0].model_copy(update={"digest": "cd" * 32})
    assert build(title="t", command="c", artifacts=folders, evaluations=[foreign]).rows[0].test_metric is None


def test_an_artifact_measured_under_two_names_keeps_what_is_its_own(
    folders: dict[str, Path], benches: list[BenchReport]
) -> None:
    (bench,) = benches
    digest = open_artifact(folders["whole"]).manifest.digest
    same_name = bench.records[0].model_copy(update={"digest": digest})
    again = same_name.model_copy(
        update={"name": "again", "latency": same_name.latency.model_copy(update={"mean_ms": 99.0})}
    )
    both = bench.model_copy(update={"records": (same_name, again)})
    only = bench.model_copy(update={"records": (again,)})
    for measured, mean in ((both, same_name.latency.mean_ms), (only, 99.0)):
        assert build(title="t", command="c", artifacts=folders, benches=[measured]).rows[0].mean_ms == mean


def test_rows_measured_on_several_backends_have_the_times_and_the_comparison_of_the_first(
    folders: dict[str, Path], benches: list[BenchReport]
) -> None:
    (bench,) = benches
    whole, chain = bench.records
    (compared,) = bench.comparisons
    slow = {"mean_ms": 99.0}
    records, comparisons = [], []
    for record in (whole, chain):
        digest = open_artifact(folders[record.name]).manifest.digest
        for backend, latency in (("onnxruntime", {}), ("openvino", slow)):
            name = f"{record.name} ({backend})"
            measured = {"latency": record.latency.model_copy(update=latency), "digest": digest, "backend": backend}
            records.append(record.model_copy(update={"name": name, **measured}))
            comparisons.append(
                compared.model_copy(
                    update={
                        "name": name,
                        "reference": "whole (onnxruntime)",
                        "speedup_mean": 0.04 if latency else compared.speedup_mean,
                    }
                )
            )
    both = bench.model_copy(
        update={
            "backend": "onnxruntime,openvino",
            "records": tuple(records),
            "comparisons": tuple(comparisons[1:]),  # the first is the reference itself
        }
    )
    report = build(title="t", command="c", artifacts=folders, benches=[both])
    assert report.reference == "whole"
    assert [row.mean_ms for row in report.rows] == [whole.latency.mean_ms, chain.latency.mean_ms]
    assert [row.speedup for row in report.rows] == [None, 2.29]
    assert "The rows have the times on onnxruntime. The table of latencies has those on openvino." in cautions(report)


def test_an_unknown_reference(folders: dict[str, Path]) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'whole'"):
        build(title="t", command="c", artifacts=folders, reference="hole")
