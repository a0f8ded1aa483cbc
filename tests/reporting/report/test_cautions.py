"""Each kind of caution is said once, however many networks it is about, and says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdcompress.reporting.report.build import build
from sdcompress.reporting.report.findings import cautions, noise
from sdcompress.schema.report import BenchReport, Evaluation, Report, StratumEvaluation


@pytest.fixture
def report(folders: dict[str, Path], evaluations: list[Evaluation], benches: list[BenchReport]) -> Report:
    return build(title="t", command="c", artifacts=folders, evaluations=evaluations, benches=benches)


def many(report: Report, count: int) -> Report:
    """The same report with so many copies of 'chain', each a little noisier than the one before."""
    (bench,) = report.benches
    rows, records, comparisons = [report.rows[0]], [bench.records[0]], []
    for k in range(count):
        reasons = (f"times scatter by {20 + k} % (standard deviation / mean), more than 10 %",)
        changed = {"name": f"net{k}", "digest": None, "stable": False, "reasons": reasons}
        records.append(bench.records[1].model_copy(update=changed | {"mixture_residual": 0.2 + k / 100}))
        rows.append(report.rows[1].model_copy(update={"name": f"net{k}", "digest": None}))
        comparisons.append(bench.comparisons[0].model_copy(update={"name": f"net{k}"}))
    other = bench.model_copy(update={"records": tuple(records), "comparisons": tuple(comparisons)})
    return report.model_copy(update={"rows": tuple(rows), "benches": (other,)})


def test_twenty_alike_are_one(report: Report) -> None:
    sentences = cautions(many(report, 20))
    assert len([sentence for sentence in sentences if "not steady" in sentence]) == 1
    assert len([sentence for sentence in sentences if "quote the median" in sentence]) == 1
    assert len([sentence for sentence in sentences if "forced exits" in sentence]) == 1
    assert any("(net19 by 39.0 %, net18 by 38.0 %, net17 by 37.0 % and 17 more)" in sentence for sentence in sentences)
    assert len(sentences) <= 4


def test_noise_names_its_strongest_reason_and_what_to_do(report: Report) -> None:
    (bench,) = many(report, 20).benches
    assert noise(bench.records) == (
        "The times of 20 of 21 measurements are not steady: times scatter by 39 % (standard deviation / mean), more"
        " than 10 % (the largest of 20). The machine causes this, not the networks. Stop other work and measure again,"
        " for longer (--duration 30s). Speed-ups suffer less, because the networks ran in interleaved rounds."
    )
    assert noise(report.benches[0].records) is None


def test_reasons_of_other_kinds_are_kept_apart(report: Report) -> None:
    record = report.benches[0].records[0]
    reasons = (
        "3.0 % of the calls took more than three medians, more than 1 %",
        "calls drifted by -8 % from the first half",
    )
    text = noise([record.model_copy(update={"stable": False, "reasons": reasons})])
    assert text is not None
    assert text.startswith(f"The times of whole (single-stream, batch 1) are not steady: {reasons[0]}; {reasons[1]}.")


def test_networks_that_lack_the_same_class_share_a_sentence(report: Report) -> None:
    strata = tuple(
        StratumEvaluation(name=name, samples=n, metric=a) for name, n, a in (("a", 60, 1), ("b", 30, 1), ("c", 10, 0))
    )
    seen = {
        "stratum": "class",
        "strata": strata,
        "confusion": ((0, 0, 60), (1, 1, 30), (2, 0, 10)),
        "samples": 100,
        "policy": None,
    }
    both = tuple(evaluation.model_copy(update=seen) for evaluation in report.evaluations[:2])
    sentences = [
        sentence
        for sentence in cautions(report.model_copy(update={"evaluations": both}))
        if "never predicts" in sentence
    ]
    assert sentences == ["whole never predicts 'c' (10 samples). The same holds for chain."]
