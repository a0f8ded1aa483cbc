"""The sentences: good and bad news alike, computed from the figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sdcompress.reporting.build import build
from sdcompress.reporting.findings import cautions, findings, headline
from sdcompress.schema.report import BenchReport, Comparison, Evaluation, Report


@pytest.fixture
def report(folders: dict[str, Path], evaluations: list[Evaluation], benches: list[BenchReport]) -> Report:
    return build(title="t", command="c", artifacts=folders, evaluations=evaluations, benches=benches)


def compared(report: Report, **changed: Any) -> Report:
    """The same report with another result of the comparison."""
    (bench,) = report.benches
    other: Comparison = bench.comparisons[0].model_copy(update=changed)
    return report.model_copy(update={"benches": (bench.model_copy(update={"comparisons": (other,)}),)})


def test_the_headline_names_the_trade_with_its_intervals(report: Report) -> None:
    assert headline(report) == (
        "chain is 2.29× as fast as whole in the mean (95 % interval 2.25 to 2.33), 4.00× at the median (3.95 to 4.05);"
        " accuracy −1.00 points on the test split (91.00 % against 92.00 %, 10\u202f000 images)."
    )


def test_a_headline_from_an_unstable_run_says_so(report: Report) -> None:
    shaky = (report.rows[0].model_copy(update={"stable": False}), report.rows[1])
    assert headline(report.model_copy(update={"rows": shaky})) == headline(report) + " The measurement was not stable."


def test_slower_and_worse_is_said_plainly(report: Report) -> None:
    slow = compared(report, verdict="slower", speedup_mean=0.8)
    assert headline(slow) == "Nothing was found that is faster than whole and at most one point less accurate."
    assert findings(slow)[0].startswith("chain is 0.80× the speed of (slower than) whole in the mean")


def test_no_difference_is_said_plainly(report: Report) -> None:
    same = compared(report, verdict="no difference", speedup_mean=1.01)
    assert findings(same)[0].startswith("chain and whole: no difference in mean latency (1.01×")


def test_speed_that_costs_more_than_a_point_makes_no_headline(report: Report) -> None:
    rows = (report.rows[0], report.rows[1].model_copy(update={"test_accuracy": 0.90}))
    assert headline(report.model_copy(update={"rows": rows})).startswith("Nothing was found")


def test_a_difference_within_the_sampling_error_is_called_so(report: Report) -> None:
    near = [e.model_copy(update={"policy": None}) if e.name == "chain" else e for e in report.evaluations]
    assert (
        "+0.00 points on the test split (92.00 % against 92.00 %, 10\u202f000 images, within sampling error)"
        in (findings(report.model_copy(update={"evaluations": tuple(near)}))[0])
    )


def test_cautions_name_unstable_runs_threads_flattering_medians_and_missing_tests(report: Report) -> None:
    assert [said for said in cautions(report) if "do not quote the median (4.00× against 2.29× in the mean)" in said]
    (bench,) = report.benches
    shaky = bench.records[0].model_copy(update={"stable": False, "reasons": ("it shook",)})
    routed = bench.records[1].model_copy(update={"mixture_residual": 0.25})
    other = bench.model_copy(update={"records": (shaky, routed), "threads": 2, "comparisons": ()})
    untested = tuple(row.model_copy(update={"test_accuracy": None}) for row in report.rows)
    said = " ".join(cautions(report.model_copy(update={"benches": (other,), "rows": untested, "notes": ("mine",)})))
    for expected in ("mine", "Not stable: it shook (whole, single-stream, batch 1).", "2 threads", "differs by 25.0 %"):
        assert expected in said
    assert "Nothing was evaluated on the test split" in said


def test_one_row_without_anything_measured(folders: dict[str, Path]) -> None:
    alone = build(title="t", command="c", artifacts={"whole": folders["whole"]})
    assert headline(alone) == "whole was not evaluated."
