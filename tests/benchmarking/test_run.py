"""The benchmark as a whole: engines whose times and exits are known, then a real artifact."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from time import thread_time_ns
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from pydantic import ValidationError
from signals import TASK

from sdcompress.artifact.read import open_artifact
from sdcompress.benchmarking import candidate, run, timed_calls
from sdcompress.benchmarking.candidate import bench_originals, input_order, split
from sdcompress.benchmarking.run import bench
from sdcompress.data.image_arrays import image_source
from sdcompress.data.samples import ArraySamples, Subset
from sdcompress.errors import DataError, InputError, UnknownNameError, UsageError
from sdcompress.machine import machine
from sdcompress.modalities import Inputs
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.modalities.image import Image
from sdcompress.reporting.quantities import milliseconds
from sdcompress.reporting.report.tables import prediction
from sdcompress.runtime.engine import Prediction
from sdcompress.runtime.open import open_engine
from sdcompress.schema.manifest import Policy
from sdcompress.schema.recipe import Bench
from sdcompress.schema.report import BenchRecord, BenchReport
from sdcompress.tasks.classification import Classification
from sdcompress.tasks.multilabel import MultiLabel

IMAGES = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)  # image i has the grey value i and the class i % 4
LABELS = np.arange(40) % 4
GREY = Image(Preprocess(channels=1, resize=(1, 1), mean=(0.5,), std=(0.5,)), (1, 1, 1))
PREPARED_MS = 0.5  # for each image
QUICK = Bench(duration_s=0.3, warmup_ms=1.0, rounds=5, batch_sizes=(4,))


class VirtualTime:
    """A clock that only the engines move, and each look at it by 0.1 us: exact, whatever else the machine does."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        self.ns += 100
        return self.ns


now = VirtualTime()


class Spinning:
    """Leaves at exit 0 where the grey value is even, at the last exit otherwise; exit k costs ``ms[k]``."""

    task = Classification(("a", "b", "c", "d"))
    policy: Policy | None = None

    def __init__(self, *ms: float) -> None:
        self.ms = ms
        self.exit_names = tuple(f"exit{k}" for k in range(len(ms)))

    @property
    def modality(self) -> Any:
        return SimpleNamespace(collate=self.preprocess)

    def preprocess(self, images: Any) -> Inputs:
        now.ns += int(1e6 * PREPARED_MS * len(images))
        grey = np.stack([np.asarray(image).reshape(1, 1, 1) for image in images])
        return Inputs({"input": grey.astype(np.float32)})

    def __call__(self, inputs: Inputs) -> Prediction:
        grey = np.asarray(inputs)[:, 0, 0, 0].astype(np.int64)
        return self._leave(grey, np.where(grey % 2 == 0, 0, len(self.ms) - 1))

    def forced(self, inputs: Inputs, exit: int) -> Prediction:  # noqa: A002 - the Engine's name for it
        return self._leave(np.asarray(inputs)[:, 0, 0, 0].astype(np.int64), np.full(len(inputs), exit))

    def _leave(self, grey: np.ndarray, left: np.ndarray) -> Prediction:
        now.ns += int(1e6 * sum(self.ms[k] for k in left))
        answers = np.where(grey < 30, grey % 4, (grey + 1) % 4)  # right on 30 of the 40 images
        return TASK.prediction(np.eye(4, dtype=np.float32)[answers], left)


class Uneven(Spinning):
    """Like ``Spinning``, but an odd grey value takes twice as long, wherever it exits."""

    policy = Policy(
        thresholds=(0.9,), max_drop=0.01, samples=9, metric=None, reference_metric=None, shares=(0.75, 0.25),
        stage_ms=(9.0, 9.0), exit_ms=(0.2, 1.6),
    )  # fmt: skip

    def _leave(self, grey: np.ndarray, left: np.ndarray) -> Prediction:
        now.ns += int(1e6 * sum(self.ms[k] for k, value in zip(left, grey, strict=True) if value % 2))
        return super()._leave(grey, left)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """'slow' takes 2 ms; 'exits' takes 1 ms or 3 ms; opening is not what these tests are about."""
    engines_by_name: dict[str, Any] = {"slow": Spinning(2.0), "same": Spinning(2.0), "exits": Spinning(0.2, 0.8)}
    engines_by_name["uneven"] = Uneven(0.2, 0.8)
    engines_by_name["elsewhere"] = Uneven(0.2, 0.8)
    engines_by_name["elsewhere"].policy = Uneven.policy.model_copy(update={"backend": "openvino"})
    manifest = SimpleNamespace(digest="0" * 64, layout="single", one_graph=None)
    monkeypatch.setattr(timed_calls, "perf_counter_ns", now)
    monkeypatch.setattr(candidate, "perf_counter_ns", now)
    monkeypatch.setattr(candidate, "open_cascade", lambda artifact, _: engines_by_name[artifact.path])
    fields = {"manifest": manifest, "opening_ms": 0.0, "task": Spinning.task, "modality": GREY}
    monkeypatch.setattr(run, "open_artifact", lambda path: SimpleNamespace(path=str(path), **fields))


def record(report: BenchReport, name: str, scenario: str) -> BenchRecord:
    return next(r for r in report.records if r.name == name and r.scenario == scenario)


@pytest.mark.usefixtures("engines")
def test_times_exits_and_accuracy_are_those_of_the_engines() -> None:
    progress_calls: list[tuple[int, int]] = []
    report = bench(
        ["slow", "exits"],
        examples=IMAGES,
        targets=LABELS,
        settings=QUICK,
        progress=lambda *done: progress_calls.append(done),
    )
    assert progress_calls == [(i + 1, 10) for i in range(10)]
    slow, exits = (record(report, name, "single-stream") for name in ("slow", "exits"))
    assert slow.exits == ()
    assert slow.worst_path is None
    assert slow.latency.percentiles[0].value_ms == pytest.approx(2.0, rel=1e-3)
    assert len(slow.raw_ms) == slow.latency.samples
    assert slow.samples_per_second == pytest.approx(1000 / slow.latency.mean_ms)
    assert exits.metric == pytest.approx(0.75)
    assert [timing.share for timing in exits.exits] == pytest.approx([0.5, 0.5], abs=0.05)
    assert [timing.forced_p50_ms for timing in exits.exits] == pytest.approx([0.2, 0.8], rel=1e-2)
    assert [timing.p50_ms for timing in exits.exits] == pytest.approx([0.2, 0.8], rel=1e-2)
    assert exits.worst_path is not None
    assert exits.worst_path.min_ms >= 0.8
    assert exits.mixture_residual == pytest.approx(0.0, abs=0.05)
    batch = record(report, "exits", "offline")
    assert (batch.batch, batch.exits) == (4, ())
    assert batch.latency.min_ms >= 4 * 0.2
    (single, _) = report.comparisons
    assert (single.name, single.reference, single.rounds, single.verdict) == ("exits", "slow", 5, "faster")
    assert single.speedup_mean == pytest.approx(2.0 / 0.5, rel=0.15)


@pytest.mark.usefixtures("engines")
def test_inputs_that_leave_early_are_compared_with_themselves_and_with_the_prediction() -> None:
    uneven = record(bench(["uneven"], examples=IMAGES, settings=QUICK), "uneven", "single-stream")
    assert [timing.mean_ms for timing in uneven.exits] == pytest.approx([0.2, 1.6], rel=1e-2)
    assert [timing.forced_mean_ms for timing in uneven.exits] == pytest.approx([0.3, 1.2], rel=0.05)
    assert uneven.latency.mean_ms == pytest.approx(0.9, rel=0.05)
    assert uneven.mixture_residual == pytest.approx(0.0, abs=0.02)  # against all inputs it would be 0.9 / 0.75 - 1
    assert uneven.predicted_ms == pytest.approx(0.75 * 0.2 + 0.25 * 1.6)
    assert uneven.predicted_at_shares_ms == pytest.approx(uneven.latency.mean_ms, rel=0.01)
    assert prediction(uneven) == (
        f"calibration predicted a mean of 0.550 ms, {0.55 / uneven.latency.mean_ms:.2f} of the measured, and "
        f"{milliseconds(uneven.predicted_at_shares_ms)} (1.00) at the exit shares of this run"
    )


@pytest.mark.usefixtures("engines")
def test_a_prediction_for_another_backend_is_left_out() -> None:
    elsewhere = record(bench(["elsewhere"], examples=IMAGES, settings=QUICK), "elsewhere", "single-stream")
    assert elsewhere.predicted_ms is None
    assert elsewhere.predicted_at_shares_ms is None
    assert prediction(elsewhere) is None


def test_the_processor_time_of_a_thread_needs_one_thread() -> None:
    assert timed_calls.clock_of(Bench(clock="thread").clock) is thread_time_ns
    with pytest.raises(ValidationError, match="leaves out other threads"):
        Bench(clock="thread", threads=2)


@pytest.mark.usefixtures("engines")
def test_preparation_is_timed_apart_and_added() -> None:
    report = bench(["slow", "exits"], examples=IMAGES, targets=LABELS, settings=QUICK)
    for name, run_ms in (("slow", 2.0), ("exits", 0.5)):
        measured = record(report, name, "single-stream")
        assert measured.preparation is not None
        assert measured.preparation.mean_ms == pytest.approx(PREPARED_MS, rel=1e-3)
        assert measured.latency.mean_ms == pytest.approx(run_ms, rel=0.15)  # the run alone, as before
        assert measured.end_to_end_ms == pytest.approx(measured.latency.mean_ms + PREPARED_MS, rel=1e-3)
        batch = record(report, name, "offline")
        assert batch.preparation is not None
        assert batch.preparation.mean_ms == pytest.approx(4 * PREPARED_MS, rel=1e-3)
    (single, _) = report.comparisons
    # 2 ms against 0.5: four times; with 0.5 ms of preparation on both sides two and a half times
    assert single.speedup_mean == pytest.approx(4.0, rel=0.15)
    assert single.speedup_end_to_end == pytest.approx(2.5, rel=0.1)
    assert single.end_to_end_low is not None
    assert single.end_to_end_high is not None
    assert single.end_to_end_low <= single.speedup_end_to_end <= single.end_to_end_high  # type: ignore[operator]
    assert report.preparation == (
        "from decoded images of 1x1 pixels (width x height), nothing is resized; decoding a file is not included"
    )


@pytest.mark.usefixtures("engines")
def test_preparation_starts_from_images_at_their_own_size() -> None:
    originals = [Pillow.new("L", (1, 1), 2 * k) for k in range(3)]
    settings = QUICK.model_copy(update={"scenarios": ("offline",)})
    report = bench(["slow"], examples=IMAGES, originals=originals, settings=settings)
    assert report.preparation is not None
    assert "resized and cropped as the network wants it" in report.preparation
    measured = record(report, "slow", "offline")  # four at a time of three pictures: they are repeated
    assert measured.preparation is not None
    assert measured.preparation.mean_ms == pytest.approx(4 * PREPARED_MS, rel=1e-3)


def test_originals_are_those_of_the_samples_that_keep_them() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 1), dtype=np.uint8)
    source = image_source(
        ("a",), Preprocess(channels=1, resize=(32, 32), mean=(0.5,), std=(0.5,)), (pixels, np.zeros(100, np.int64))
    )
    measured = bench_originals(Subset(source.train, np.arange(50, 100)), source.modality)
    assert measured is not None
    assert len(measured) == 50
    assert {image.size for image in measured} == {(8, 8)}
    assert {np.asarray(image).tobytes() for image in measured} == {image.tobytes() for image in pixels[50:]}
    assert bench_originals(ArraySamples(pixels, np.zeros(100, np.int64)), source.modality) is None


@pytest.mark.usefixtures("engines")
def test_each_artifact_gets_the_time_it_was_promised() -> None:
    settings = QUICK.model_copy(update={"scenarios": ("single-stream",)})
    start = now()
    report = bench(["slow", "exits"], examples=IMAGES, settings=settings)
    wall = (now() - start) / 1e9
    for measured in report.records:
        assert sum(measured.raw_ms) / 1000 == pytest.approx(0.3, rel=0.25)
        assert measured.metric is None
    assert wall < 3 * 0.3 + 3.0  # the exits are forced for as long again; opening, warm-up and a machine of others


def test_two_folders_with_one_name_are_told_apart_in_the_error() -> None:
    with pytest.raises(UsageError, match=r"2 artifacts \(a/full, b/full\) have the names full, full\.") as caught:
        bench(["a/full", "b/full"], examples=IMAGES, settings=QUICK)
    assert "give one of two another name" in caught.value.next_step


@pytest.mark.usefixtures("engines")
@pytest.mark.parametrize(("busy", "stable"), [(6.5, True), (7.5, False)])
def test_other_work_disturbs_where_it_leaves_no_core_of_the_machine_whatever_a_group_allows(
    monkeypatch: pytest.MonkeyPatch, busy: float, stable: bool
) -> None:
    allowed = machine().model_copy(update={"cores": 2, "quota": 2.0, "busy_cores": busy})
    monkeypatch.setattr(run, "machine", lambda: allowed)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)  # the load that the system tells is that of all of them
    (measured,) = bench(
        ["slow"], examples=IMAGES, settings=QUICK.model_copy(update={"scenarios": ("single-stream",)})
    ).records
    assert measured.stable == stable
    assert stable or measured.reasons == ("other work kept 7.5 of 8 cores busy before the run, 1 threads wanted",)


@pytest.mark.usefixtures("engines")
def test_the_reference_may_be_any_of_them_and_equals_do_not_differ() -> None:
    settings = QUICK.model_copy(update={"scenarios": ("offline",), "duration_s": 1.0})
    report = bench(["slow", "same"], examples=IMAGES, settings=settings, names=["A", "B"], reference="B")
    (comparison,) = report.comparisons
    assert (comparison.name, comparison.reference) == ("A", "B")
    assert comparison.speedup_p50 == pytest.approx(1.0)
    assert BenchReport.model_validate_json(report.model_dump_json()) == report


@pytest.mark.usefixtures("engines")
@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"names": ["A", "A"]}, UsageError, "another name"),
        ({"names": ["A"]}, UsageError, "another name"),
        ({"reference": "slaw"}, UnknownNameError, "Did you mean 'slow'"),
        ({"targets": LABELS[:3]}, InputError, "40 examples and 3 targets"),
        ({"targets": LABELS + 1}, DataError, "4"),
        ({"examples": IMAGES.astype(np.float32)}, InputError, "uint8"),
        ({"examples": IMAGES[:0]}, InputError, "at least one"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_timed(
    changed: dict[str, Any], error: type[Exception], said: str
) -> None:
    asked: dict[str, Any] = {"examples": IMAGES, "settings": QUICK} | changed
    with pytest.raises(error, match=said):
        bench(["slow", "exits"], **asked)


def test_inputs_are_one_fixed_permutation_cut_into_whole_batches() -> None:
    order = input_order(IMAGES, GREY)
    assert sorted(order) == list(range(40))
    assert order.tolist() == input_order(IMAGES, GREY).tolist() != list(range(40))
    assert [len(batch) for batch in split(np.zeros((10, 1, 1, 1), dtype=np.float32), 4)] == [4, 4]


def test_real_artifacts(tiny_artifact: Callable[..., Path]) -> None:
    chain, single = tiny_artifact("cascade", policy=(0.6, 0.6)), tiny_artifact("single")
    golden = open_artifact(chain).golden()
    settings = Bench(duration_s=0.2, warmup_ms=5.0, rounds=5, batch_sizes=(4,))
    report = bench(
        [chain, single], examples=golden.examples, targets=golden.targets, settings=settings, source="golden"
    )
    measured = record(report, "cascade", "single-stream")
    assert measured.digest == open_artifact(chain).manifest.digest
    assert (measured.layout, record(report, "single", "offline").layout) == ("cascade", "single")
    assert measured.load_ms > 0
    assert measured.first_ms > 0
    engine = open_engine(chain)
    prediction = engine(engine.preprocess(golden.examples))
    assert measured.metric == pytest.approx((prediction.decision == golden.targets).mean())
    shares = [(prediction.exit_index == k).mean() for k in range(3)]
    assert [timing.share for timing in measured.exits] == pytest.approx(shares, abs=0.05)
    assert report.input.startswith("golden: 16 different examples")


@pytest.mark.usefixtures("engines")
def test_label_sets_are_scored_by_their_tasks_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decisions are always {a}; half of the targets are {a, b}, half {b}: Jaccard 1/2 and 0, the mean 1/4."""
    task = MultiLabel(("a", "b"))
    targets = np.array([[1, 1], [0, 1]] * 20, np.uint8)
    monkeypatch.setattr(Spinning, "task", task)

    def leave(_: Spinning, grey: np.ndarray, left: np.ndarray) -> Prediction:
        now.ns += 1_000_000 * len(grey)
        return task.prediction(np.array([[1, -1]], np.float32).repeat(len(grey), 0), left)

    monkeypatch.setattr(Spinning, "_leave", leave)
    fields = {"manifest": SimpleNamespace(digest="0" * 64, layout="single", one_graph=None), "opening_ms": 0.0}
    opened = SimpleNamespace(path="slow", task=task, modality=GREY, **fields)
    monkeypatch.setattr(run, "open_artifact", lambda _: opened)
    report = bench(["slow"], examples=IMAGES, targets=targets, settings=QUICK)
    assert record(report, "slow", "offline").metric == pytest.approx(0.25)
