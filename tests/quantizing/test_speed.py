"""Which is faster, an artifact or what was made of it, with engines whose times are known."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from signals import TASK

from sdcompress.artifact.read import open_artifact
from sdcompress.cli import quantize as quantizing
from sdcompress.modalities import Inputs
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.modalities.image import Image
from sdcompress.quantizing import speed
from sdcompress.runtime.engine import Prediction
from sdcompress.schema.change import Speed


class Slow:
    """Takes so many milliseconds for a call."""

    def __init__(self, ms: float) -> None:
        self.ms = ms

    modality = Image(Preprocess(channels=1, mean=(0.5,), std=(0.25,)), (1, 4, 4))

    def forced(self, inputs: Inputs, exit: int) -> Prediction:  # noqa: A002
        assert (np.asarray(inputs).shape, exit) == ((1, 1, 4, 4), -1)
        time.sleep(self.ms / 1e3)
        return TASK.prediction(np.zeros((1, 3), np.float32), np.zeros(1, np.int64))


@pytest.mark.parametrize(("ms", "source_ms", "verdict"), [(4.0, 1.0, "slower"), (1.0, 4.0, "faster")])
def test_both_are_timed_and_the_slower_one_is_named(
    ms: float, source_ms: float, verdict: str, monkeypatch: pytest.MonkeyPatch, tiny_network: Any
) -> None:
    engines = {"made": Slow(ms), "source": Slow(source_ms)}
    opened: list[int] = []

    def open_engine(artifact: str, *, threads: int, allow_uncertified: bool) -> Slow:
        assert allow_uncertified  # a certificate may be about engines, and nothing is decided by it here
        opened.append(threads)
        return engines[artifact]

    monkeypatch.setattr(speed, "open_engine", open_engine)
    measured = speed.speed_beside("source", "made", tiny_network.samples(40), threads=2)
    assert (measured.verdict, measured.threads, opened) == (verdict, 2, [2, 2])
    assert measured.ms >= ms  # a busy machine sleeps longer, never shorter
    assert measured.source_ms >= source_ms
    assert measured.speedup == pytest.approx(measured.source_ms / measured.ms, rel=1e-2)
    assert measured.low <= measured.speedup <= measured.high
    assert (measured.speedup < 1) == (verdict == "slower")


def test_an_artifact_beside_itself_is_timed_at_all(tiny_artifact: Callable[..., Path], tiny_network: Any) -> None:
    artifact = open_artifact(tiny_artifact())
    measured = speed.speed_beside(artifact, artifact, tiny_network.samples(3), threads=1)
    assert 0.2 < measured.speedup < 5


@pytest.mark.parametrize(
    ("verdict", "opening"),
    [
        ("slower", "slower here: "),
        ("faster", "faster here: "),
        ("no difference", "no measurable difference here: "),
    ],
)
def test_the_command_prints_the_verdict_first(verdict: Any, opening: str) -> None:
    speed_ = Speed(threads=1, ms=1.37, source_ms=1.0, speedup=0.73, low=0.71, high=0.75, verdict=verdict)
    line = quantizing._speed(speed_, "uint8")
    assert line.startswith(opening)
    assert "1.37 ms in uint8, 1 ms in fp32, 0.73x [0.71, 0.75] as fast (one sample, 1 thread)" in line
