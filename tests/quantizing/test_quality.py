"""The distance on the golden images, from outputs that are made up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sdcompress.artifact.golden import Golden
from sdcompress.artifact.read import open_artifact
from sdcompress.errors import VerificationError
from sdcompress.quantizing import quality


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[np.ndarray, np.ndarray], None]:
    """``pretend(fused, plain)``: what the graphs give, with optimisations and without."""

    def outputs(fused: np.ndarray, plain: np.ndarray) -> None:
        def open_sessions(*_: object, optimise: bool = True, **__: object) -> Callable:
            return lambda _: fused if optimise else plain

        monkeypatch.setattr(quality, "open_sessions", open_sessions)

    return outputs


def test_the_larger_distance_of_the_two_ways_counts_and_is_doubled(pretend: Callable, tiny_artifact: Any) -> None:
    opened = open_artifact(tiny_artifact("single"))
    reference = np.array([[[0.0, 1.0, 4.0], [2.0, 1.0, 0.0]]], np.float32)
    golden = Golden(opened.golden().examples[:2], np.array([2, 0]), reference)
    fused, plain = reference.copy(), reference.copy()
    fused[0, 1] = [1.0, 1.25, 0.0]  # off by 1, and class 1 instead of 0
    plain[0, 0, 2] = 2.5  # off by 1.5
    pretend(fused, plain)
    (record,) = quality.golden_records(opened.manifest, [], golden, threads=1)
    assert (record.max_abs_diff, record.flips, record.samples) == (1.5, 1, 2)
    assert record.tolerance == pytest.approx(2 * 1.5 + opened.manifest.parity[0].tolerance)
    pretend(plain, fused)
    (record,) = quality.golden_records(opened.manifest, [], golden, threads=1)
    assert (record.max_abs_diff, record.flips) == (1.5, 0)


def test_the_whole_split_is_compared_in_batches_of_64(
    monkeypatch: pytest.MonkeyPatch, tiny_artifact: Any, tiny_network: Any
) -> None:
    """256 texts of 512 tokens would take 3.2 GB for the scores of one layer of 12 heads."""
    manifest, sizes = open_artifact(tiny_artifact("single")).manifest, list[int]()

    def run(inputs: Any) -> np.ndarray:
        sizes.append(len(inputs))
        return np.zeros((1, len(inputs), 3), np.float32)

    monkeypatch.setattr(quality, "open_sessions", lambda *_, **__: run)
    (exit_,) = quality.compare_exits(manifest, [], [], tiny_network.samples(150), threads=1, progress=None)
    assert (sizes, exit_.samples) == ([64, 64, 64, 64, 22, 22], 150)  # before and after


def test_what_is_not_finite_has_no_distance(pretend: Callable, tiny_artifact: Any) -> None:
    opened = open_artifact(tiny_artifact("single"))
    golden = opened.golden()
    broken = golden.outputs.copy()
    broken[0, 3, 1] = np.inf
    pretend(golden.outputs, broken)
    with pytest.raises(VerificationError, match="not finite"):
        quality.golden_records(opened.manifest, [], golden, threads=1)
