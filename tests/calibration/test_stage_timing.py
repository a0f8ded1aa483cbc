"""The cost of stages, measured on engines whose stages take known times on a clock of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from signals import TASK

from sdcompress.artifact.read import open_artifact
from sdcompress.calibration.stage_timing import overhead, stage_ms, stage_times
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
    """An engine under a policy: on a clock of its own an image at exit 0 takes 2 ms, one at the last exit 6 ms."""

    def __init__(self, engine: Any) -> None:
        self._engine, self.now, self.slow, self.calls = engine, 0, 1, 0

    @property
    def modality(self) -> Modality:
        return self._engine.modality

    def with_policy(self, policy: Policy, temperatures: Sequence[float]) -> Mixed:
        assert (policy.thresholds, temperatures) == ((0.9,), (1.0, 2.0))
        return self

    def __call__(self, inputs: Inputs) -> Prediction:
        early = np.asarray(inputs).sum() > 0
        self.now += self.slow * (2_000_000 if early else 6_000_000)
        self.calls += 1
        return TASK.prediction(np.zeros((1, 3), np.float32), np.array([0 if early else 1]))


def test_overhead_is_what_the_mix_takes_beyond_its_stages(
    tiny_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.zeros((256, 4, 4, 1), np.uint8)
    images[:64] = 255  # a quarter leaves early
    engine = Mixed(open_engine(tiny_artifact(), threads=1))
    monkeypatch.setattr("sdcompress.calibration.stage_timing.perf_counter_ns", lambda: engine.now)
    policy = Policy(
        thresholds=(0.9,), max_drop=0.01, samples=9, metric=None, reference_metric=None, shares=(0.5, 0.5),
        stage_ms=(1.0, 2.5), decision_ms=(0.5,), overhead=7.0,
    )  # fmt: skip
    found = overhead(engine, ArraySamples(images, np.zeros(256, np.int64)), policy, (1.0, 2.0))  # type: ignore[arg-type]
    # about 1/4 of the calls took 2 ms instead of 1.5, the others 6 ms instead of 4: it is one number for both
    assert found == pytest.approx((0.25 * 2 + 0.75 * 6) / (0.25 * 1.5 + 0.75 * 4), rel=0.02)
    assert engine.now < 1.01e9  # a second, whatever one image takes
    engine.now, engine.slow, engine.calls = 0, 100, 0
    overhead(engine, ArraySamples(images, np.zeros(256, np.int64)), policy, (1.0, 2.0))  # type: ignore[arg-type]
    assert engine.calls == 3 + 64  # and no less than these
    assert policy.model_copy(update={"overhead": found}).mean_ms == pytest.approx(found * (1.5 + 4.0) / 2)
