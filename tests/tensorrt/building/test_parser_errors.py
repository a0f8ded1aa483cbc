"""The message for a graph that the parser refuses."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sdcompress.tensorrt.building.parser_errors import Fault, node_at, parse_error

ATTENTION = Fault("Attention", "/blocks.0/attn", "no importer registered for op")


def test_node_segment_and_way_out_are_named() -> None:
    message = str(parse_error("segment-1.onnx", [ATTENTION], tensorrt="10.9.0.34", reason="[E] parse"))
    for words in ("segment-1.onnx", "Attention", "/blocks.0/attn", "later TensorRT", "--opset", "'onnxruntime'"):
        assert words in message


def test_for_8_the_way_out_is_an_older_opset_first() -> None:
    norm = Fault("LayerNormalization", "/norm", "Plugin not found")
    message = str(parse_error("segment-0.onnx", [norm], tensorrt="8.5.3.1", reason="[E] 3: getPluginCreator"))
    for words in ("LayerNormalization of the node '/norm'", "getPluginCreator", "opset 17", "next: ", "--opset 16"):
        assert words in message


def test_a_fault_of_no_node_has_its_number() -> None:
    assert (
        "the operator of the node '-1'"
        in parse_error("a", [Fault("", "-1", "Failed")], tensorrt="8.5.3.1", reason="").problem
    )


def test_many_faults_are_counted_and_none_leaves_the_reason() -> None:
    assert "and 2 more" in parse_error("a", [ATTENTION] * 5, tensorrt="10.9", reason="").problem
    assert "[E] not a model" in parse_error("a", [], tensorrt="10.9", reason="[E] not a model").problem


def model() -> onnx.ModelProto:
    """Fields of every kind before and between the nodes, a subgraph with nodes of its own, lengths of several bytes."""
    inner = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["inner"], name="inside")],
        "inner",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("LeakyRelu", ["x"], ["y"], name="first", alpha=0.25),
        helper.make_node("If", ["c"], ["z"], name="branches", then_branch=inner, else_branch=inner),
        helper.make_node("Sum", ["x"] * 300, ["a"]),
        helper.make_node("Mish", ["a"], ["b"], name="größer" * 50),
    ]
    weights = numpy_helper.from_array(np.arange(70000, dtype=np.float32), "w")
    onnx_model = helper.make_model(helper.make_graph(nodes, "g", [], [], [weights], doc_string="d" * 200))
    onnx_model.model_version = -(2**40)
    return onnx_model


def test_operator_and_name_are_those_that_onnx_reads() -> None:
    onnx_model = model()
    data = onnx_model.SerializeToString()
    for index, node in enumerate(onnx_model.graph.node):
        assert node_at(data, index) == (node.op_type, node.name)


@pytest.mark.parametrize("index", [-1, 4])
def test_there_is_no_node_of_another_number(index: int) -> None:
    assert node_at(model().SerializeToString(), index) is None


def test_a_file_without_a_graph_has_no_nodes() -> None:
    assert node_at(onnx.ModelProto(ir_version=8).SerializeToString(), 0) is None


@pytest.mark.parametrize("data", [b"not a model", b"\x3a\x05\x0a\x03\x1a\x01\xff", b"\x3a\xff", b"\x0b"])
def test_bytes_that_are_no_onnx_have_none(data: bytes) -> None:
    """Text, a name that is not UTF-8, a length that is cut off, a type of field that ONNX does not use."""
    assert node_at(data, 0) is None
