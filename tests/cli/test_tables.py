"""What the terminal shows of an evaluation and of a benchmark."""

from __future__ import annotations

import numpy as np
import pytest

from sdcompress.benchmarking.stats import latency
from sdcompress.cli.bench import _show as show_bench
from sdcompress.cli.evaluate import _show as show_evaluation
from sdcompress.evaluation.strata import balanced_metric, confusion, stratum_scores
from sdcompress.schema.report import BenchRecord, BenchReport, Comparison, Evaluation, ExitEvaluation, Machine


def test_an_evaluation_shows_every_class_and_says_when_only_the_majority_is_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels = np.repeat([0, 1], [946, 54])
    answers = np.zeros(1000, np.int64)
    scores = stratum_scores(("common", "rare"), labels, np.float32(labels != answers))
    show_evaluation(
        Evaluation(
            kind="artifact", name="net", source="net", data="cells", split="test", samples=1000,
            exits=(ExitEvaluation(name="final", metric=0.946, further={"nll": 0.2, "ece": 0.01}),), strata=scores,
            metric_name="accuracy", binary_loss=True, stratum="class", balanced_metric=balanced_metric(scores),
            confusion=confusion(labels, answers, 2),
        )
    )  # fmt: skip
    said = capsys.readouterr().out
    assert "1000 samples; balanced accuracy 50.00%" in said
    assert "Confusion matrix of net (artifact), test split" in said
    rare = next(line for line in said.splitlines() if "rare" in line)
    assert "54" in rare
    assert "0.00 %" in rare
    assert "caution: net predicts 'common', the commonest class, for every sample: balanced accuracy 50.00 %." in said


def test_a_benchmark_shows_the_run_and_the_time_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    """Where preparation takes 0.16 ms, 2.9x of a run of 0.087 ms is 1.3x end to end."""
    records = tuple(
        BenchRecord(
            name=name, source=name, digest=None, layout="single", scenario="single-stream", batch=1,
            latency=latency(np.full(20, run), (50.0, 99.0)), preparation=latency(np.full(20, 0.16), (50.0, 99.0)),
            end_to_end_ms=run + 0.16, samples_per_second=1000 / run, load_ms=1.0, first_ms=1.0, stable=not reasons,
            reasons=reasons,
        )
        for name, run, reasons in (("whole", 0.087, ()), ("early", 0.03, ("calls drifted by +9 %",)))
    )  # fmt: skip
    ratio = Comparison(
        name="early", reference="whole", scenario="single-stream", batch=1, speedup_p50=2.9, low=2.8, high=3.0,
        speedup_mean=2.9, mean_low=2.8, mean_high=3.0, speedup_end_to_end=1.3, end_to_end_low=1.28,
        end_to_end_high=1.32, rounds=10, verdict="faster",
    )  # fmt: skip
    machine = Machine(cpu="CPU", cores=2, isa=(), memory_gib=8, gpu=None, os="os", python="3", versions={})
    show_bench(
        BenchReport(
            created="now", command="bench", machine=machine, threads=1, device="cpu", input="images",
            preparation="from decoded images", warmup_ms=1, duration_s=1, records=records, comparisons=(ratio,),
        )
    )  # fmt: skip
    said = capsys.readouterr().out
    early = next(line for line in said.splitlines() if line.startswith("│ early"))
    assert [cell.strip() for cell in early.strip("│").split("│")][5:8] == ["0.030", "0.160", "0.190"]
    assert "mean 2.90x [2.80, 3.00] (faster), p50 2.90x [2.80, 3.00], end to end 1.30x [1.28, 1.32]" in said
    assert (
        "The times of early (single-stream, batch 1) are not steady: calls drifted by +9 %. The machine causes this"
        in said
    )
    assert "preparation: from decoded images" in said
