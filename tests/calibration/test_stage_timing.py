"""The cost of stages, measured on engines whose stages take known times on a clock of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from signals import TASK

from sdcompress.artifact.read import open_artifact
from sdcompress.calibration.stage_timing import call_times, compared_ms, stage_ms, stage_times
from sdcompress.data.samples import ArraySamples
from sdcompress.modalities import Inputs, Modality
from sdcompress.runtime.engine import Prediction
from sdcompress.runtime.open import open_engine
from sdcompress.schema.manifest import Policy


class Timed:
    """An engine that takes known times for each row, on the clock that the measurement reads."""

    exit_names = ("exit1", "exit2", "final")

    def __init__(self, engine: Any, seconds: tuple[float, ...], monkeypatch: pytest.MonkeyPatch) -> None:
        self._engine, self._seconds, self.calls, self.now = engine, seconds, 0, 0
        monkeypatch.setattr("sdcompress.calibration.stage_timing.perf_counter_ns", lambda: self.now)

    @property
    def modality(self) -> Modality:
        return self._engine.modality

    def forced(self, inputs: Inputs, exit: int) -> Prediction:  # noqa: A002
        assert np.asarray(inputs).shape[1:] == (1, 4, 4)
        self.calls += 1
        self.now += round(1e9 * sum(self._seconds[: exit + 1]) * len(inputs)) + 1_000
        return self._engine.forced(inputs, exit)

    def move_ms(self, position: int) -> float | None:
        return self._engine.move_ms(position)


@pytest.fixture
def samples(tiny_network: Any) -> ArraySamples:
    return tiny_network.samples(60)


def test_differences_of_exits(
    tiny_artifact: Callable[..., Path], samples: ArraySamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Timed(open_engine(tiny_artifact(), threads=1), (0.004, 0.0, 0.008), monkeypatch)
    first, second, third = stage_ms(engine, samples, seconds=0.3)
    assert first == pytest.approx(4.001)
    assert second == pytest.approx(1e-3)  # the least that a stage is said to take
    assert third == pytest.approx(8)


def test_a_real_engine_within_its_time(tiny_artifact: Callable[..., Path], samples: ArraySamples) -> None:
    times = stage_ms(open_engine(tiny_artifact(), threads=1), samples, seconds=0.05)
    assert len(times) == 3
    assert all(0 < ms < 50 for ms in times)


def test_slow_networks_get_five_rounds(
    tiny_artifact: Callable[..., Path], samples: ArraySamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Timed(open_engine(tiny_artifact(), threads=1), (0.001, 0.0, 0.0), monkeypatch)
    stage_ms(engine, samples, seconds=0.0)
    assert engine.calls == 3 * (3 + 5)


def test_calls_are_compared_by_the_shares_of_all_samples(
    tiny_artifact: Callable[..., Path], samples: ArraySamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow network: few calls fit, those first in order take the last exit, and the machine stalls once."""
    engine = Timed(open_engine(tiny_artifact(), threads=1), (), monkeypatch)
    exit_index = np.repeat([2, 0], [15, 45])
    singles = [np.asarray(engine.modality.collate(samples.examples(np.array([row])))).tobytes() for row in range(60)]
    exit_of, timed = dict(zip(singles, exit_index, strict=True)), list[int]()

    def early(inputs: Inputs) -> None:
        timed.append(exit_of[np.asarray(inputs).tobytes()])
        engine.now += 100_000_000 if timed[-1] else 10_000_000
        engine.now += 10_000_000_000 if len(timed) == 40 else 0

    def whole(_: Inputs) -> None:
        engine.now += 90_000_000

    compared: Any = engine
    ms = compared_ms([early, whole], compared, samples, exit_index, usual_ms=60.0, seconds=1.0)
    assert ms == pytest.approx([0.25 * 100 + 0.75 * 10, 90])
    assert (timed.count(0), timed.count(2)) == (5 * 12, 3 + 5 * 4)  # 3 to warm up, then five rounds


def test_with_more_rows(
    tiny_artifact: Callable[..., Path], samples: ArraySamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    cascade = tiny_artifact()
    engine = Timed(open_engine(cascade, threads=1), (0.001, 0.0, 0.002), monkeypatch)
    found = stage_times(engine, open_artifact(cascade).manifest, samples, seconds=0.0)  # type: ignore[arg-type]
    # five rounds of two stages of 3 ms a row take longer than nothing: only one row is measured
    assert found.rows == (1,)
    found = stage_times(engine, open_artifact(cascade).manifest, samples, seconds=0.2)  # type: ignore[arg-type]
    assert found.rows[:5] == (1, 2, 4, 8, 16)
    for rows, first, third in zip(found.rows, found.ms[0], found.ms[2], strict=True):
        assert first == pytest.approx(rows, abs=2e-3)
        assert third == pytest.approx(2 * rows)


def test_what_moving_a_row_takes(tiny_artifact: Callable[..., Path], samples: ArraySamples) -> None:
    cascade = tiny_artifact()
    found = stage_times(open_engine(cascade, threads=1), open_artifact(cascade).manifest, samples, seconds=0.0)
    assert len(found.move_ms) == 2
    assert all(0 < ms < 5 for ms in found.move_ms)


class Mixed:
    """An engine under a policy: on a clock of its own a bright image leaves at once after 2 ms, others take 6 ms."""

    def __init__(self, engine: Any) -> None:
        self._engine, self.now, self.slow, self.calls = engine, 0, 1, 0

    @property
    def modality(self) -> Modality:
        return self._engine.modality

    def with_policy(self, policy: Policy, temperatures: Sequence[float]) -> Mixed:
        assert (policy.thresholds, temperatures) == ((0.9, 0.9), (1.0, 2.0, 3.0))
        return self

    def __call__(self, inputs: Inputs) -> Prediction:
        early = np.asarray(inputs).sum() > 0
        self.now += self.slow * (2_000_000 if early else 6_000_000)
        self.calls += 1
        return TASK.prediction(np.zeros((1, 3), np.float32), np.array([0 if early else 2]))


MIXED = Policy(
    thresholds=(0.9, 0.9), max_drop=0.01, samples=9, metric=None, reference_metric=None, shares=(0.25, 0.0, 0.75),
    stage_ms=(1.0, 1.0, 1.5), decision_ms=(0.5, 0.0), overhead=7.0,
)  # fmt: skip


def test_an_exit_takes_what_the_samples_that_take_it_took(tiny_artifact: Callable[..., Path]) -> None:
    images = np.zeros((240, 4, 4, 1), np.uint8)
    images[:60] = 255  # a quarter leaves early
    exits = np.where(np.arange(240) < 60, 0, 2)
    engine = Mixed(open_engine(tiny_artifact(), threads=1))

    def measured(seconds: float) -> Any:
        samples = ArraySamples(images, np.zeros(240, np.int64))
        return call_times(
            engine, samples, MIXED, (1.0, 2.0, 3.0), exits, seconds=seconds, clock=lambda: engine.now  # type: ignore[arg-type]
        )  # fmt: skip

    found = measured(1.0)
    assert found.exit_ms == (2.0, None, 6.0)
    # a quarter took 2 ms and the others 6, where the stages and decisions add up to 1.5 and 4
    assert found.overhead == pytest.approx((0.25 * 2 + 0.75 * 6) / (0.25 * 1.5 + 0.75 * 4), rel=0.02)
    assert engine.now < 1.5e9  # five rounds of a fifth of a second each, by stages that take less than they turn out to
    engine.now, engine.slow, engine.calls = 0, 100, 0
    assert measured(0.0).exit_ms == (200.0, None, 600.0)
    assert engine.calls == 3 + 5 * 16  # and no less than these


def test_an_exit_that_one_sample_takes_is_timed(tiny_artifact: Callable[..., Path]) -> None:
    images = np.zeros((240, 4, 4, 1), np.uint8)
    images[7] = 255
    samples, exits = ArraySamples(images, np.zeros(240, np.int64)), np.where(np.arange(240) == 7, 0, 2)
    engine = Mixed(open_engine(tiny_artifact(), threads=1))
    found = call_times(
        engine, samples, MIXED, (1.0, 2.0, 3.0), exits,
        seconds=0.0, clock=lambda: engine.now,  # type: ignore[arg-type]
    )  # fmt: skip
    assert found.exit_ms == (2.0, None, 6.0)


def test_the_predicted_mean_at_other_shares() -> None:
    policy = MIXED.model_copy(update={"exit_ms": (2.0, None, 6.0)})
    assert policy.mean_ms == pytest.approx(0.25 * 2 + 0.75 * 6)
    assert policy.expected_ms((0.5, 0.0, 0.5)) == pytest.approx(4.0)
    # no sample of the second exit was timed: 7 times its stages and decisions, 1 + 0.5 + 1
    assert policy.expected_ms((0.5, 0.1, 0.4)) == pytest.approx(0.5 * 2 + 0.1 * 7 * 2.5 + 0.4 * 6)
    assert MIXED.mean_ms == pytest.approx(7 * (0.25 * 1.5 + 0.75 * 4))  # nothing was timed: stages and decisions alone


class Words:
    """A modality of texts whose lengths are their examples."""

    varies = True

    def collate(self, examples: Any) -> Inputs:
        mask = (np.arange(int(examples.max())) < examples[:, None]).astype(np.int64)
        return Inputs({"mask": mask}, "mask")


class Reader:
    """An engine that takes 1 ms for each word of a text; those with an odd number leave early, at half of that."""

    modality = Words()
    now = 0

    def with_policy(self, policy: Policy, temperatures: Sequence[float]) -> Reader:
        return self

    def __call__(self, inputs: Inputs) -> Prediction:
        (words,) = inputs.lengths
        self.now += int(words) * (500_000 if words % 2 else 1_000_000)
        return TASK.prediction(np.zeros((1, 3), np.float32), np.array([0 if words % 2 else 1]))


def test_the_timed_texts_have_the_lengths_of_all_texts_at_their_exit() -> None:
    words = np.concatenate([np.arange(0, 1000, 2) % 60 + 1, np.arange(0, 500) % 20 * 2 + 2])
    words = words[np.random.default_rng(3).permutation(len(words))]
    exits = np.where(words % 2, 0, 1)
    policy = Policy(
        thresholds=(0.9,), max_drop=0.01, samples=9, metric=None, reference_metric=None,
        shares=((exits == 0).mean(), (exits == 1).mean()), stage_ms=(10.0, 10.0),
    )  # fmt: skip
    engine = Reader()
    found = call_times(
        engine, ArraySamples(words, exits), policy, (1.0, 1.0), exits, seconds=3.0, clock=lambda: engine.now  # type: ignore[arg-type]
    )  # fmt: skip
    exact = [words[exits == 0].mean() / 2, words[exits == 1].mean()]
    assert found.exit_ms == pytest.approx(exact, rel=0.04)
    mean = np.where(exits == 0, words / 2, words).mean()
    assert policy.model_copy(update=found._asdict()).mean_ms == pytest.approx(mean, rel=0.03)
