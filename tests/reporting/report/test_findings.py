"""The sentences: good and bad news alike, computed from the figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdcompress.evaluation.paired import pack, paired_difference
from sdcompress.reporting import quantities as q
from sdcompress.reporting.report.build import build
from sdcompress.reporting.report.findings import cautions, findings, headline
from sdcompress.schema.base import Interval
from sdcompress.schema.report import BenchReport, Comparison, Evaluation, ExitEvaluation, PolicyEvaluation, Report


@pytest.fixture
def report(folders: dict[str, Path], evaluations: list[Evaluation], benches: list[BenchReport]) -> Report:
    return build(title="t", command="c", artifacts=folders, evaluations=evaluations, benches=benches)


def compared(report: Report, **changed: Any) -> Report:
    """The same report with another result of the comparison."""
    (bench,) = report.benches
    other: Comparison = bench.comparisons[0].model_copy(update=changed)
    return report.model_copy(update={"benches": (bench.model_copy(update={"comparisons": (other,)}),)})


def test_the_headline_names_the_trade_in_one_breath(report: Report) -> None:
    text = "chain is 2.29× as fast as whole (2.00× end to end) and loses 1.00 points of accuracy."
    assert headline(report) == text
    assert len(text.split()) < 25


def test_the_headline_says_what_early_exit_adds_to_the_best_without_it(report: Report) -> None:
    """A third row, without a policy, is slower or faster than the cascade, or loses more than a point."""
    bench, comparison = report.benches[0], report.benches[0].comparisons[0]
    (whole, chain) = report.rows

    def beside(speedup: float, accuracy: float | None, of_chain: float | None = 0.91) -> str:
        other = chain.model_copy(
            update={
                "name": "uint8",
                "guarantee": None,
                "test_metric": accuracy,
                "speedup": speedup,
                "speedup_end_to_end": speedup,
            }
        )
        both = (comparison, comparison.model_copy(update={"name": "uint8"}))
        changed = {
            "rows": (whole, chain.model_copy(update={"guarantee": "1 point", "test_metric": of_chain}), other),
            "benches": (bench.model_copy(update={"comparisons": both}),),
        }
        return headline(report.model_copy(update=changed))

    trade = "chain is 2.29× as fast as whole (2.00× end to end) and loses 1.00 points of accuracy."
    assert beside(1.5, 0.92) == f"{trade} Without early exit the best is uint8, 1.50×."
    assert beside(1.5, 0.90) == f"{trade} Without early exit nothing is faster and loses at most one point."
    assert beside(3.0, 0.92).endswith("Early exit does not pay here: with it the best is chain, 2.00×.")
    assert beside(3.0, 0.92, of_chain=0.8).endswith("with it nothing is faster and loses at most one point.")
    unknown = "Whether early exit pays here is not known: the accuracy of {} was not compared."
    assert beside(1.5, None) == f"{trade} {unknown.format('uint8')}"
    assert beside(3.0, 0.92, of_chain=None).endswith(f" {unknown.format('chain')}")


def test_a_policy_by_which_no_sample_exits_early_is_no_early_exit_in_the_headline(report: Report) -> None:
    """'chain' is the fastest and its calibration disabled early exit; a cascade with early exit is slower."""
    bench, comparison = report.benches[0], report.benches[0].comparisons[0]
    whole, chain = report.rows
    by_last_exit = PolicyEvaluation(metric=0.91, shares=(0.0, 1.0), metric_by_exit=(None, 0.91))
    disabled = report.evaluations[1].model_copy(update={"policy": by_last_exit})
    rows = {
        "chain": chain,
        "truncated": chain.model_copy(update={"name": "truncated", "guarantee": None, "speedup_end_to_end": 1.5}),
    }

    def beside(*further: Evaluation) -> str:
        other = {one.name: chain.model_copy(update={"name": one.name, "speedup_end_to_end": 1.2}) for one in further}
        shown = {**rows, **other}
        changed = {
            "rows": (whole, *shown.values()),
            "evaluations": (report.evaluations[0], disabled, *further),
            "benches": (
                bench.model_copy(
                    update={"comparisons": tuple(comparison.model_copy(update={"name": name}) for name in shown)}
                ),
            ),
        }
        return headline(report.model_copy(update=changed))

    trade = "chain is 2.29× as fast as whole (2.00× end to end) and loses 1.00 points of accuracy."
    assert beside() == trade
    early = report.evaluations[1].model_copy(update={"name": "early"})
    assert beside(early) == f"{trade} Early exit does not pay here: with it the best is early, 1.20×."


def test_a_headline_from_an_unsteady_machine_says_what_to_do(report: Report) -> None:
    shaky = (report.rows[0].model_copy(update={"stable": False}), report.rows[1])
    expected = headline(report) + " The machine was not steady; measure again."
    assert headline(report.model_copy(update={"rows": shaky})) == expected


def test_a_headline_calls_a_difference_within_sampling_error_so(report: Report) -> None:
    near = answered(report, gained=5, lost=9, samples=945)
    rows = tuple(
        row.model_copy(update={"test_metric": right / 945}) for row, right in zip(report.rows, (940, 936), strict=True)
    )
    assert headline(near.model_copy(update={"rows": rows})) == (
        "chain is 2.29× as fast as whole (2.00× end to end); its accuracy is equal within sampling error"
        " (−0.42 points)."
    )


def test_no_row_is_praised_whose_accuracy_was_not_compared(report: Report) -> None:
    evaluations = tuple(evaluation for evaluation in report.evaluations if evaluation.name == "chain")
    rows = (report.rows[0].model_copy(update={"test_metric": None}), report.rows[1])
    sentence = headline(report.model_copy(update={"evaluations": evaluations, "rows": rows}))
    assert sentence == (
        "No trade-off can be named: the accuracy of chain and whole was not compared."
        " 'sdcompress evaluate' on each of them gives it."
    )


def test_the_finding_of_a_row_has_the_intervals_and_the_time_end_to_end(report: Report) -> None:
    (sentence,) = findings(report)
    assert sentence == (
        "chain is 2.29× as fast as whole (95 % interval 2.25 to 2.33); end to end 2.00× (1.97 to 2.03)."
        " Accuracy −1.00 points on the test split (91.00 % against 92.00 %, 10\u202f000 samples)."
    )


def test_slower_and_worse_is_said_plainly(report: Report) -> None:
    slow = compared(report, verdict="slower", speedup_mean=0.8)
    assert headline(slow) == "No artifact is faster than whole and loses at most one point of accuracy."
    assert findings(slow)[0].startswith("chain is 0.80× the speed of (slower than) whole (95 %")


def test_no_difference_is_said_plainly(report: Report) -> None:
    same = compared(report, verdict="no difference", speedup_mean=1.01)
    assert findings(same)[0].startswith("chain and whole: no difference in the mean time of a run (1.01×")


def test_speed_that_costs_more_than_a_point_makes_no_headline(report: Report) -> None:
    rows = (report.rows[0], report.rows[1].model_copy(update={"test_metric": 0.90}))
    assert headline(report.model_copy(update={"rows": rows})).startswith("No artifact is faster")


def answered(report: Report, gained: int, lost: int, samples: int) -> Report:
    """'whole' is right on all images but the first few; 'chain' is right on those, and wrong on the last few."""
    theirs, mine = np.ones(samples, np.bool_), np.ones(samples, np.bool_)
    theirs[:gained], mine[samples - lost :] = False, False
    evaluations = []
    for evaluation, right in zip(report.evaluations[:2], (theirs, mine), strict=True):
        last = ExitEvaluation(name="final", metric=float(right.mean()))
        kept = {
            "samples": samples,
            "losses": pack(np.float32(~right)),
            "targets_sha256": "ab" * 32,
            "exits": (last,),
            "policy": None,
        }
        evaluations.append(evaluation.model_copy(update=kept))
    return report.model_copy(update={"evaluations": tuple(evaluations)})


def test_a_difference_that_the_paired_interval_excludes_is_not_called_sampling_error(report: Report) -> None:
    # 6 lost of 945, by chance rarer than once in 20: 6 / 947 +- 1.96 * sqrt(8 / 947 - (6 / 947) ** 2) / sqrt(947)
    (sentence,) = findings(answered(report, gained=0, lost=6, samples=945))
    assert "Accuracy −0.63 points (95 % interval −1.22 to −0.05) on the test split" in sentence
    assert "sampling error" not in sentence


def test_a_difference_within_the_sampling_error_is_called_so(report: Report) -> None:
    # 5 won, 9 lost of 945: 4 / 947 +- 1.96 * sqrt(16 / 947) / sqrt(947) = 0.422 +- 0.827
    (sentence,) = findings(answered(report, gained=5, lost=9, samples=945))
    assert "Accuracy −0.42 points (95 % interval −1.25 to +0.41, within sampling error) on the test split" in sentence
    # 4 lost, none won: once in 8 as many or more differ all in one direction
    (sentence,) = findings(answered(report, gained=0, lost=4, samples=945))
    assert "Accuracy −0.42 points (95 % interval −0.93 to +0.08, within sampling error) on the test split" in sentence


def test_report_and_explanation_say_the_same_of_a_difference(report: Report) -> None:
    loss = np.zeros((2, 945), np.float32)
    loss[0, :4] = 1
    value, low, high = paired_difference(loss[0], loss[1])  # as the explanation has it
    words = q.paired(Interval(value=value, low=low, high=high))
    assert words == "−0.42 points (95 % interval −0.93 to +0.08, within sampling error)"
    assert words in findings(answered(report, gained=0, lost=4, samples=945))[0]


def test_a_difference_that_cannot_be_paired_has_no_verdict(report: Report) -> None:
    assert "sampling error" not in findings(report)[0]
    assert any(
        sentence.startswith("chain: the difference in accuracy from whole has no") for sentence in cautions(report)
    )
    paired = answered(report, gained=5, lost=9, samples=945)
    assert not any("has no interval" in sentence for sentence in cautions(paired))
    other = paired.evaluations[1].model_copy(update={"targets_sha256": "cd" * 32})
    apart = paired.model_copy(update={"evaluations": (paired.evaluations[0], other)})
    assert "sampling error" not in findings(apart)[0]
    assert any("has no interval" in sentence for sentence in cautions(apart))


def test_cautions_name_unstable_runs_threads_flattering_medians_and_missing_tests(report: Report) -> None:
    assert [text for text in cautions(report) if "quote the median (chain, 4.00× against 2.29× in the mean)" in text]
    (bench,) = report.benches
    shaky = bench.records[0].model_copy(update={"stable": False, "reasons": ("it shook",)})
    routed = bench.records[1].model_copy(update={"mixture_residual": 0.25})
    other = bench.model_copy(update={"records": (shaky, routed), "threads": 2, "comparisons": ()})
    untested = tuple(row.model_copy(update={"test_metric": None}) for row in report.rows)
    text = " ".join(cautions(report.model_copy(update={"benches": (other,), "rows": untested, "notes": ("mine",)})))
    noisy = (
        "The times of whole (single-stream, batch 1) are not steady: it shook. The machine causes this, not the "
        "networks."
    )
    for expected in ("mine", noisy, "2 threads", "differs from the weighted sum of the forced exits (chain by 25.0 %)"):
        assert expected in text
    assert "Nothing was evaluated on the test split" in text


def test_one_row_without_anything_measured(folders: dict[str, Path]) -> None:
    alone = build(title="t", command="c", artifacts={"whole": folders["whole"]})
    assert headline(alone) == "whole was not evaluated."
