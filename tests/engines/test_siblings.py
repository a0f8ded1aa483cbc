"""Which of two networks is faster, with networks whose times are known."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sdcompress.artifact.read import open_artifact
from sdcompress.engines.profiles import parse_batch
from sdcompress.engines.prove import prove
from sdcompress.engines.settings import BuildSettings
from sdcompress.engines.siblings import Sibling, find_siblings, race
from sdcompress.errors import SetupError, UsageError
from sdcompress.nvidia.probe import Gpu
from sdcompress.runtime.engine import Prediction
from sdcompress.runtime.open import open_engine

L4 = Gpu("NVIDIA L4", "8.9", 24 * 2**30, "", "13.0")


class Slow:
    """Takes so many milliseconds for each image."""

    def __init__(self, ms: float) -> None:
        self.ms, self.seen = ms, set[int]()

    def forced(self, inputs: np.ndarray, exit: int) -> Prediction:  # noqa: A002
        assert exit == -1
        self.seen.add(len(inputs))
        time.sleep(self.ms * len(inputs) / 1e3)
        return Prediction(np.zeros((len(inputs), 3), np.float32), np.zeros(len(inputs), np.int64))


def sibling(digit: str, precision: str) -> Sibling:
    return Sibling(Path(precision), digit * 64, precision)


def test_each_is_compared_at_each_batch() -> None:
    ours, slower, faster = Slow(2.0), Slow(4.0), Slow(1.0)
    inputs = np.zeros((3, 1, 4, 4), np.float32)
    told: list[tuple[int, int]] = []
    found = race(
        ours, [(sibling("a", "fp32"), slower), (sibling("b", "fp16"), faster)], inputs, [1, 2],
        rounds=5, seconds=0.02, progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert [(one.precision, one.batch, one.verdict) for one in found] == [
        ("fp32", 1, "faster"),
        ("fp16", 1, "slower"),
        ("fp32", 2, "faster"),
        ("fp16", 2, "slower"),
    ]
    assert ours.seen == slower.seen == faster.seen == {1, 2}
    for one in found:
        assert one.low <= one.speedup <= one.high
    assert found[0].digest == "a" * 64
    assert 2.0 <= found[0].ms < 4.0 <= found[0].sibling_ms
    assert 1.2 < found[0].speedup < 3.0
    assert 0.3 < found[1].speedup < 0.9
    assert told[-1] == (10, 10)


def test_a_network_is_no_faster_than_itself() -> None:
    (found,) = race(
        Slow(1.0), [(sibling("a", "fp32"), Slow(1.0))], np.zeros((1, 1, 4, 4), np.float32), [1], seconds=0.03
    )
    assert 0.7 < found.speedup < 1.4


def test_a_sibling_without_engines_for_this_machine_is_refused_before_a_build(
    tiny_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    manifest = open_artifact(tiny_artifact()).manifest
    with pytest.raises(SetupError, match="has no TensorRT engines") as caught:
        find_siblings([tiny_artifact(name="other")], manifest, tensorrt="10.9.0.34", gpu=L4)
    assert "--format trt" in caught.value.next_step


def test_another_question_is_no_sibling(tiny_artifact: Callable[..., Path]) -> None:
    manifest = open_artifact(tiny_artifact()).manifest
    other = manifest.model_copy(update={"classes": ("a", "b", "c")})
    with pytest.raises(UsageError, match="its classes are not"):
        find_siblings([tiny_artifact(name="other")], other, tensorrt="10.9.0.34", gpu=L4)


def test_all_of_it_is_shown_of_engines(tiny_artifact: Callable[..., Path], tiny_network) -> None:
    artifact = open_artifact(tiny_artifact())
    engine = open_engine(artifact.path)
    settings = BuildSettings(profiles=parse_batch("1:2:4,5:8:8"), tf32=False)
    others = [(sibling("c", "int8"), engine)]
    found = prove(engine, artifact, settings, samples=tiny_network.samples(40), siblings=others)
    assert [record.exit for record in found["parity"]] == ["exit1", "exit2", "final"]
    assert found["validation"].images == 40
    assert [time.batch for time in found["siblings"]] == [2, 8]  # what the profiles are tuned for
    bare = prove(engine, artifact, settings, samples=None, siblings=())
    assert (bare["validation"], bare["siblings"]) == (None, ())
