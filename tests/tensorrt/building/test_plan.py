"""What of building a plan needs no TensorRT: an error of its parser, as this package tells it, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from onnx import helper

from sdcompress.errors import UsageError
from sdcompress.schema.graphs import Segment, Tensor
from sdcompress.tensorrt.building.parser_errors import Fault
from sdcompress.tensorrt.building.plan import Builder, _fault
from sdcompress.tensorrt.building.settings import BuildSettings
from sdcompress.tensorrt.nvidia.log import Log

NODES = [helper.make_node("Relu", ["x"], ["y"], name="first"), helper.make_node("Mish", ["y"], ["z"], name="second")]
GRAPH = helper.make_model(helper.make_graph(NODES, "g", [], [])).SerializeToString()


def error(node: int, **more: str) -> SimpleNamespace:
    """The methods of ParserError: 8.5 has these two, 9 and later also the node's names."""
    texts = {"desc": "Plugin not found", **more}
    methods = {name: (lambda text=text: text) for name, text in texts.items()}
    return SimpleNamespace(node=lambda: node, **methods)


def test_8_5_gives_a_number_and_the_file_the_name() -> None:
    assert _fault(error(1), GRAPH) == Fault("Mish", "second", "Plugin not found")
    assert _fault(error(-1), GRAPH) == Fault("", "-1", "Plugin not found")


def test_later_ones_say_it_themselves() -> None:
    fault = error(1, node_operator="Gelu", node_name="/inner/gelu")  # of a subgraph, say
    assert _fault(fault, GRAPH) == Fault("Gelu", "/inner/gelu", "Plugin not found")
    assert _fault(error(3, node_operator="Gelu", node_name=""), GRAPH).node == "3"


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
        builder.build(b"", segment, report=lambda _: None, stopped=lambda: False)
    assert "fp32, fp16 or int8" in str(caught.value)
    assert "TensorRT 10 or 11" in str(caught.value)
