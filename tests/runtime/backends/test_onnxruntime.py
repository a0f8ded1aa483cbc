"""ONNX Runtime as a backend: what it cannot do is said in one of our errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest

from sdcompress.artifact.read import open_artifact
from sdcompress.errors import ArtifactError, SetupError
from sdcompress.runtime.backends.onnxruntime import load
from sdcompress.runtime.open import open_engine
from sdcompress.schema.manifest import Tensor

Write = Callable[..., Path]


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is here")
def test_a_device_that_is_not_here(tiny_artifact: Write) -> None:
    with pytest.raises(SetupError, match=r"(?s)no CUDAExecutionProvider.*cpu.*CPUExecutionProvider.*onnxruntime-gpu"):
        open_engine(tiny_artifact(), device="cuda")


def test_a_device_that_nobody_knows(tiny_artifact: Write) -> None:
    with pytest.raises(SetupError, match="'tpu'"):
        open_engine(tiny_artifact(), device="tpu")


@pytest.mark.parametrize("content", [b"", b"no graph at all"])
def test_a_file_that_is_no_graph(tiny_artifact: Write, content: bytes) -> None:
    artifact = open_artifact(tiny_artifact())
    segment = artifact.manifest.segments[0]
    artifact.file(segment).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"cannot load .*segment-0\.onnx"):
        load(artifact.file(segment), segment, threads=1, device="cpu")


def test_a_graph_whose_borders_are_not_the_manifests(tiny_artifact: Write) -> None:
    artifact = open_artifact(tiny_artifact())
    segment = artifact.manifest.segments[0]
    other = segment.model_copy(update={"inputs": (Tensor(name="pixels", dtype="float32", shape=("batch", 1, 4, 4)),)})
    with pytest.raises(ArtifactError, match=r"(?s)'input'.*'pixels'"):
        load(artifact.file(segment), other, threads=1, device="cpu")
