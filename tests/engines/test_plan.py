"""What a builder is asked, without TensorRT: the order in which it refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from sdcompress.engines.plan import Builder
from sdcompress.engines.settings import BuildSettings
from sdcompress.errors import UsageError
from sdcompress.nvidia.log import Log
from sdcompress.schema.graphs import Segment, Tensor


def tensorrt_8() -> Any:
    """As much of 8.6 as a builder's configuration needs; parsing anything is an error."""
    parser = MagicMock(side_effect=AssertionError("the graph was parsed"))
    return SimpleNamespace(
        __version__="8.6.1",
        ILogger=type("ILogger", (), {}),
        Builder=MagicMock(),
        OnnxParser=parser,
        NetworkDefinitionCreationFlag=SimpleNamespace(EXPLICIT_BATCH=0),
        BuilderFlag=SimpleNamespace(TF32=1, FP16=2, INT8=3),
        MemoryPoolType=SimpleNamespace(WORKSPACE=0),
        ProfilingVerbosity=SimpleNamespace(DETAILED=0),
        TacticSource=SimpleNamespace(EDGE_MASK_CONVOLUTIONS=1, JIT_CONVOLUTIONS=2),
    )


@pytest.mark.parametrize("precision", ["fp8", "bf16"])
def test_a_precision_that_8_has_not_is_named_before_the_graph_is_parsed(precision: Any) -> None:
    """Whose opset it cannot read either: a hint to export with a lower one would lead nowhere."""
    tensor = Tensor(name="x", dtype="float32", shape=("batch", 3))
    segment = Segment(
        file="a.onnx", sha256="0" * 64, bytes=1, inputs=(tensor,), outputs=(tensor,),
        precision=precision, macs=1, parameters=1,
    )  # fmt: skip
    builder = Builder(tensorrt_8(), Log(), BuildSettings())
    with pytest.raises(UsageError, match=rf"{precision}, which TensorRT 8\.6\.1 does not have") as caught:
        builder.build(b"", segment, tell=lambda _: None, stopped=lambda: False)
    assert "fp32, fp16 or int8" in str(caught.value)
    assert "TensorRT 10 or 11" in str(caught.value)
