"""The comparison with the checkpoint's logits, run with an engine that this machine has: ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from signals import TASK

from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.errors import ParityError
from sdcompress.runtime.open import open_engine
from sdcompress.tensorrt.building.parity import TF32_RTOL, compare_exit, run_parity, tolerance
from sdcompress.tensorrt.building.profiles import parse_batch


def test_every_batch_that_the_runtime_will_run_is_run(tiny_artifact: Callable[..., Path]) -> None:
    artifact = open_artifact(tiny_artifact())
    seen: set[int] = set()

    class Watched:
        def __init__(self) -> None:
            self.engine = open_engine(artifact.path)

        def exits(self, inputs: np.ndarray) -> np.ndarray:
            seen.add(len(inputs))
            return self.engine.exits(inputs)

    profiles = parse_batch("1:1:1,2:5:8,9:16:40")
    records = run_parity(artifact, Watched(), profiles=profiles, tf32=False)
    assert seen == {1, 2, 4, 5, 8, 16, 32, 40}
    assert [record.exit for record in records] == ["exit1", "exit2", "final"]
    for record in records:
        assert record.batches == (1, 2, 4, 5, 8, 16, 32, 40)
        assert record.max_abs_diff <= record.tolerance == 1e-4
        assert record.samples == 16
        assert record.flips == 0


class Spoiled:
    """The right logits, but for one number."""

    def __init__(self, path: Path, by: float) -> None:
        self.engine, self.by = open_engine(path), by

    def exits(self, inputs: np.ndarray) -> np.ndarray:
        logits = self.engine.exits(inputs)
        logits[1, 0, 0] += self.by
        return logits


@pytest.mark.parametrize(
    ("by", "words"), [(0.01, "exit2: outputs are off by 0.01"), (np.nan, "exit2: outputs are not")]
)
def test_an_exit_that_is_off_is_named(tiny_artifact: Callable[..., Path], by: float, words: str) -> None:
    artifact = open_artifact(tiny_artifact())

    spoiled = Spoiled(artifact.path, by)
    with pytest.raises(ParityError, match=words) as caught:
        run_parity(artifact, spoiled, profiles=parse_batch("4"), tf32=False)
    assert "--no-tf32" not in caught.value.next_step  # it is off
    assert "--level" in caught.value.next_step
    if by == 0.01:
        largest = np.abs(artifact.golden().outputs).max(axis=(1, 2))
        assert largest[1] * TF32_RTOL > by  # which TF32 may be
        assert run_parity(artifact, spoiled, profiles=parse_batch("4"), tf32=True)


@pytest.mark.parametrize(("precision", "words"), [("fp32", "--no-tf32"), ("int8", "int8 costs more on this GPU")])
def test_the_next_step_is_one_that_can_help(tiny_artifact: Callable[..., Path], precision: str, words: str) -> None:
    artifact = open_artifact(tiny_artifact())
    segments = tuple(segment.model_copy(update={"precision": precision}) for segment in artifact.manifest.segments)
    of_it = Artifact(artifact.path, artifact.manifest.model_copy(update={"segments": segments}))
    with pytest.raises(ParityError) as caught:
        run_parity(of_it, Spoiled(artifact.path, 1.0), profiles=parse_batch("4"), tf32=True)
    assert words in caught.value.next_step


def test_tf32_widens_and_never_narrows() -> None:
    reference = np.array([[10.0, -20.0]], np.float32)
    assert tolerance(1e-4, reference, tf32=False) == 1e-4
    assert tolerance(1e-4, reference, tf32=True) == pytest.approx(0.2)
    assert tolerance(0.5, reference, tf32=True) == 0.5


def test_a_class_flips_only_beyond_the_tolerance() -> None:
    reference = np.array([[1.0, 0.0], [0.55, 0.5]], np.float32)
    flipped = reference[:, ::-1].copy()
    record, problem = compare_exit("final", [flipped], reference, task=TASK, batches=(2,), limit=0.1)
    assert record is not None
    assert record.flips == 1
    assert "1 decisions change" in problem
