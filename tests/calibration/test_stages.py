"""The cost of stages, measured on an engine whose stages sleep for known times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest

from sdcompress.calibration.stages import stage_ms
from sdcompress.data.samples import ArraySamples
from sdcompress.runtime.engine import Float, Prediction
from sdcompress.runtime.open import open_engine


class Sleepy:
    """An engine that takes known times at batch 1."""

    exit_names = ("exit1", "exit2", "final")

    def __init__(self, engine: Any, seconds: tuple[float, ...]) -> None:
        self._engine, self._seconds, self.calls = engine, seconds, 0

    def preprocess(self, images: np.ndarray) -> Float:
        return self._engine.preprocess(images)

    def forced(self, inputs: Float, exit: int) -> Prediction:  # noqa: A002
        assert inputs.shape == (1, 1, 4, 4)
        self.calls += 1
        sleep(sum(self._seconds[: exit + 1]))
        return self._engine.forced(inputs, exit)


@pytest.fixture
def samples(tiny_network: Any) -> ArraySamples:
    return tiny_network.samples(60)


def test_differences_of_exits(tiny_artifact: Callable[..., Path], samples: ArraySamples) -> None:
    engine = Sleepy(open_engine(tiny_artifact(), threads=1), (0.004, 0.0, 0.008))
    first, second, third = stage_ms(engine, samples, seconds=0.3)
    assert first == pytest.approx(4, abs=1.5)
    assert 0 < second < 1.5
    assert third == pytest.approx(8, abs=1.5)


def test_a_real_engine_within_its_time(tiny_artifact: Callable[..., Path], samples: ArraySamples) -> None:
    times = stage_ms(open_engine(tiny_artifact(), threads=1), samples, seconds=0.05)
    assert len(times) == 3
    assert all(0 < ms < 50 for ms in times)


def test_slow_networks_get_five_rounds(tiny_artifact: Callable[..., Path], samples: ArraySamples) -> None:
    engine = Sleepy(open_engine(tiny_artifact(), threads=1), (0.001, 0.0, 0.0))
    stage_ms(engine, samples, seconds=0.0)
    assert engine.calls == 3 * (3 + 5)
