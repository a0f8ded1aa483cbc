"""Tables of embeddings in float16: what is looked up in them, and which tables stay as they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sdcompress.quantizing import embeddings
from sdcompress.quantizing.embeddings import halve_embeddings
from sdcompress.quantizing.precisions._base import FloatSegment, Rewriter
from sdcompress.quantizing.precisions.int8 import int8
from sdcompress.quantizing.precisions.uint8 import uint8

PLACES = np.arange(3, dtype=np.float32)
TABLE = np.array([[1.0, -65504.0], [0.1, 0.0], [2.5, 1 + 2**-11]], np.float32)


def looking_up(table: np.ndarray = TABLE, *, tied: bool = False) -> onnx.ModelProto:
    """y = the rows of the table at x; with ``tied`` also z = y table^T."""
    info = helper.make_tensor_value_info
    nodes, outputs = [helper.make_node("Gather", ["table", "x"], ["y"])], [info("y", TensorProto.FLOAT, ["n", 2])]
    if tied:
        nodes += [helper.make_node("Gemm", ["y", "table"], ["z"], transB=1)]
        outputs += [info("z", TensorProto.FLOAT, ["n", 3])]
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.INT64, ["n"])], outputs, [numpy_helper.from_array(table, "table")]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_rows_are_looked_up_in_float16_and_computed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "_LEAST_VALUES", 6)
    model = looking_up()
    halve_embeddings(model.graph)
    onnx.checker.check_model(model, full_check=True)
    assert [tensor.data_type for tensor in model.graph.initializer] == [TensorProto.FLOAT16]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (rows,) = session.run(["y"], {"x": np.array([2, 0, 1, 0])})
    # 0.1 is 1638 * 2^-14 in float16; 1 + 2^-11 lies between two numbers, and the even one is 1
    lowest = [1.0, -65504.0]
    np.testing.assert_array_equal(rows, np.array([[2.5, 1.0], lowest, [1638 * 2**-14, 0.0], lowest], np.float32))


@pytest.mark.parametrize(
    ("model", "least"),
    [
        (looking_up(tied=True), 6),
        (looking_up(2 * TABLE), 6),  # beyond the largest float16
        (looking_up(), 7),
    ],
)
def test_tables_that_stay(model: onnx.ModelProto, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "_LEAST_VALUES", least)
    before = model.SerializeToString(deterministic=True)
    halve_embeddings(model.graph)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("precision", [int8, uint8])
def test_a_table_that_a_product_reads_too_is_looked_up_as_it_is(
    precision: Rewriter, graph: Callable[..., onnx.ModelProto], segment_of: Callable[..., FloatSegment]
) -> None:
    """Tied weights: the product has codes of its own, -64 to 64 for each row."""
    nodes = [
        helper.make_node("Cast", ["x"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], ["rows"]),
        helper.make_node("Neg", ["rows"], ["negative"]),  # so that the rows are not rounded as inputs of the product
        helper.make_node("Gemm", ["negative", "table"], ["y"], transB=1),
    ]
    table = np.array([[1.0, -3.0], [0.123, 0.4], [2.5, 1.23]], np.float32)
    model = precision(
        segment_of(graph(nodes, {"x": ["n"]}, {"rows": ["n", 2], "y": ["n", 3]}, {"table": table}), [PLACES])
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rows, products = session.run(["rows", "y"], {"x": PLACES})
    np.testing.assert_array_equal(rows, table)
    np.testing.assert_allclose(products, -table @ table.T, atol=0.15)
    assert [node.op_type for node in model.graph.node if "table" in node.input] == ["Gather"]
