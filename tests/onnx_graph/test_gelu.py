"""GELU: its products reordered with the same bits, so that onnxruntime fuses it."""

import math

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from sdcompress.onnx_graph.edit import copy_model
from sdcompress.onnx_graph.gelu import reorder_gelu


def gelu(half: float = 0.5, *, extra_output: bool = False) -> onnx.ModelProto:
    """What torch's exporter writes for ``torch.nn.functional.gelu``."""
    scalars = {"root": math.sqrt(2), "one": 1.0, "half": half}
    nodes = [
        helper.make_node("Div", ["x", "root"], ["scaled"]),
        helper.make_node("Erf", ["scaled"], ["erf"]),
        helper.make_node("Add", ["erf", "one"], ["sum"]),
        helper.make_node("Mul", ["half", "sum"], ["halved"]),
        helper.make_node("Mul", ["x", "halved"], ["y"]),
    ]
    names = ["y", *(["halved"] if extra_output else [])]
    graph = helper.make_graph(
        nodes,
        "gelu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 7])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 7]) for name in names],
        [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in scalars.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model: onnx.ModelProto, x: np.ndarray, level: ort.GraphOptimizationLevel) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    return np.asarray(ort.InferenceSession(model.SerializeToString(), options).run(["y"], {"x": x})[0])


def optimised_operators(model: onnx.ModelProto, file: str) -> list[str]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = file
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(file).graph.node]


def test_same_bits_and_one_operator(tmp_path):
    before, after = gelu(), gelu()
    reorder_gelu(after)
    onnx.checker.check_model(after, full_check=True)
    x = np.random.default_rng(0).normal(scale=3, size=(5, 7)).astype(np.float32)
    as_written = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    np.testing.assert_array_equal(run(after, x, as_written), run(before, x, as_written))
    expected = torch.nn.functional.gelu(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(run(after, x, ort.GraphOptimizationLevel.ORT_ENABLE_ALL), expected, atol=1e-6)
    assert optimised_operators(after, str(tmp_path / "after.onnx")) == ["Gelu"]
    assert "Gelu" not in optimised_operators(before, str(tmp_path / "before.onnx"))


@pytest.mark.parametrize("model", [gelu(half=0.25), gelu(extra_output=True)], ids=["another factor", "read elsewhere"])
def test_what_is_no_gelu_or_is_read_elsewhere_stays(model):
    before = copy_model(model)
    reorder_gelu(model)
    assert model == before


def test_a_second_time_changes_nothing():
    model = gelu()
    reorder_gelu(model)
    once = copy_model(model)
    reorder_gelu(model)
    assert model == once
