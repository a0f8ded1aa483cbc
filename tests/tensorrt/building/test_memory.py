"""The least memory that engines take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sdcompress.artifact.read import open_artifact
from sdcompress.errors import SetupError, UsageError
from sdcompress.schema.graphs import Tensor
from sdcompress.tensorrt.building.memory import check_memory, least_bytes, tensor_shape
from sdcompress.tensorrt.building.profiles import parse_batch


def test_it_is_the_graphs_and_the_tensors_between_them(tiny_artifact: Callable[..., Path]) -> None:
    manifest = open_artifact(tiny_artifact(signals=False)).manifest
    weights = sum(segment.bytes for segment in manifest.segments)
    # input 16, hidden 6, deep 8 and three times 3 logits, float32
    assert least_bytes(manifest, parse_batch("1:8:32")) == weights + 32 * 4 * (16 + 6 + 8 + 9)


def test_what_cannot_fit_is_refused_with_the_batch_that_could(tiny_artifact: Callable[..., Path]) -> None:
    manifest = open_artifact(tiny_artifact(signals=False)).manifest
    profiles = parse_batch("1:8:1000")
    needed = least_bytes(manifest, profiles)
    check_memory(manifest, profiles, free=needed, gpu="NVIDIA X")
    with pytest.raises(SetupError, match="on NVIDIA X") as caught:
        check_memory(manifest, profiles, free=needed - 1, gpu="NVIDIA X")
    assert "batches up to 999 or fewer" in caught.value.allowed
    with pytest.raises(SetupError) as caught:
        check_memory(manifest, profiles, free=10, gpu="NVIDIA X")
    assert caught.value.allowed == "smaller graphs"


def test_only_the_batch_may_vary() -> None:
    assert tensor_shape(Tensor(name="x", dtype="float32", shape=("batch", 3)), 8) == (8, 3)
    assert tensor_shape(Tensor(name="x", dtype="float32", shape=(1, 3)), 8) == (1, 3)
    with pytest.raises(UsageError, match="'x' has the shape"):
        tensor_shape(Tensor(name="x", dtype="float32", shape=("batch", "height")), 8)
