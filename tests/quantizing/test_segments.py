"""A segment taken apart and put together again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from signals import TASK

from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.artifact.write import entry, seal
from sdcompress.errors import UsageError
from sdcompress.onnx_graph.exit_signals import add_signals
from sdcompress.quantizing.precisions._base import FloatSegment
from sdcompress.quantizing.precisions.fp16 import fp16
from sdcompress.quantizing.precisions.int8 import int8
from sdcompress.quantizing.segments import count_products, load_segment, output_layers, with_signals, without_signals

Made = Callable[..., onnx.ModelProto]


def spoilt(artifact: Path, change: Callable[[onnx.ModelProto], None]) -> Artifact:
    """An artifact whose first segment is changed, and whose manifest says so."""
    manifest = open_artifact(artifact).manifest
    first = manifest.segments[0]
    model = onnx.load(artifact / first.file)
    change(model)
    onnx.save(model, artifact / first.file)
    renewed = first.model_copy(update=entry(artifact, first.file).model_dump())
    seal(artifact, **{**dict(manifest), "segments": (renewed, *manifest.segments[1:])})
    return open_artifact(artifact)


def foreign(model: onnx.ModelProto) -> None:
    model.graph.node[2].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def branching(model: onnx.ModelProto) -> None:
    out = helper.make_tensor_value_info("t", TensorProto.BOOL, [])
    branch = helper.make_graph([helper.make_node("Identity", ["yes"], ["t"])], "branch", [], [out])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("If", ["yes"], ["asked"], then_branch=branch, else_branch=branch))


def outside(model: onnx.ModelProto) -> None:
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], location="elsewhere.bin")


@pytest.mark.parametrize(
    ("change", "named"), [(foreign, r"com\.example\.Tanh"), (branching, "If"), (outside, "weights in a separate file")]
)
def test_what_is_not_plain_onnx_is_refused_by_name(tiny_artifact: Callable, change: Callable, named: str) -> None:
    if change is outside:  # cannot be written back: onnx would put the weights inside again
        opened = open_artifact(tiny_artifact())
        model = onnx.load(opened.file(opened.manifest.segments[0]))
        change(model)
        (opened.path / "segment-0.onnx").write_bytes(model.SerializeToString())
    else:
        opened = spoilt(tiny_artifact(), change)
    with pytest.raises(UsageError, match=named) as caught:
        load_segment(opened, opened.manifest.segments[0])
    assert "sdcompress export" in str(caught.value)


def test_a_segment_in_another_precision_is_refused(tiny_artifact: Callable) -> None:
    opened = open_artifact(tiny_artifact())
    with pytest.raises(UsageError, match=r"'segment-0\.onnx' of .* is in int8 already"):
        load_segment(opened, opened.manifest.segments[0].model_copy(update={"precision": "int8"}))


def test_signals_are_left_out_and_appended_as_they_were(residual: onnx.ModelProto) -> None:
    full, names = add_signals(residual, "exit1", "exit1_outputs", TASK, batch="batch")
    bare = without_signals(full, [names])
    assert [v.name for v in bare.graph.output] == ["border", "exit1_outputs"]
    assert not {"LogSoftmax", "TopK", "ArgMax"} & {node.op_type for node in bare.graph.node}
    assert not any("exit1_outputs/" in tensor.name for tensor in bare.graph.initializer)
    again = with_signals(bare, full, [("exit1", "exit1_outputs", names)], TASK, batch="batch")
    assert again.graph.output == full.graph.output
    tails = [
        [node for node in model.graph.node if any("exit1_outputs" in name for name in node.input)]
        + [node for node in model.graph.node if node.output[0] in (names.values, names.decision)]
        for model in (again, full)
    ]
    assert tails[0] == tails[1]
    assert len(tails[0]) > 5


def test_batch_norm_is_folded_into_the_convolution_before_it(graph: Made) -> None:
    """y = (conv(x) - mean) / sqrt(var + eps) * scale + shift is a convolution with other weights."""
    weights = {
        "w": np.array([2.0, -1.0], np.float32).reshape(2, 1, 1, 1),
        "scale": np.array([3.0, 0.5], np.float32),
        "shift": np.array([0.25, 1.0], np.float32),
        "mean": np.array([1.0, -2.0], np.float32),
        "var": np.array([4.0, 0.25], np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["y"], epsilon=0.0, name="norm"),
    ]
    model = without_signals(graph(nodes, {"x": ["batch", 1, 2, 2]}, {"y": ["batch", 2, 2, 2]}, weights), [])
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    stored = [numpy_helper.to_array(tensor).ravel() for tensor in model.graph.initializer]
    expected = [[2 * 3 / 2, -1 * 0.5 / 0.5], [0.25 - 1 * 3 / 2, 1.0 + 2 * 0.5 / 0.5]]  # weights, bias
    for each in expected:
        assert any(output.shape == (2,) and np.allclose(output, each) for output in stored), (each, stored)
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (output,) = session.run(None, {"x": x})
    np.testing.assert_allclose(output[0], [3 * x[0, 0] - 1.25, -x[0, 0] + 3.0], rtol=1e-6)


def test_products_are_counted_by_what_they_read(graph: Made) -> None:
    scale, zero = np.float32(0.1), np.int8(0)
    weights = {"w": np.eye(3, dtype=np.float32), "c": np.eye(3, dtype=np.int8), "s": scale, "z": zero}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["c", "s", "z"], ["wd"]),
        helper.make_node("MatMul", ["d", "wd"], ["a"]),  # both rounded
        helper.make_node("MatMul", ["d", "w"], ["b"]),  # weights in float32
        helper.make_node("MatMul", ["x", "wd"], ["e"]),  # data in float32
        helper.make_node("Sum", ["a", "b", "e"], ["y"]),
    ]
    model = graph(nodes, {"x": ["batch", 3]}, {"y": ["batch", 3]}, weights)
    assert count_products(model, "int8") == (1, 2)
    assert count_products(model, "fp16") == (0, 3)


def test_a_product_whose_weight_comes_first_is_counted_like_any_other(graph: Made) -> None:
    weights = {"w": np.eye(3, dtype=np.float32), "v": np.eye(3, dtype=np.float32)}
    nodes = [helper.make_node("MatMul", ["w", "x"], ["a"]), helper.make_node("MatMul", ["v", "a"], ["y"])]
    model = graph(nodes, {"x": ["batch", 3, 2]}, {"y": ["batch", 3, 2]}, weights)
    assert count_products(model, "fp16") == (0, 2)
    quantised = fp16(FloatSegment(model, frozenset({"y"}), lambda: iter([])))
    assert count_products(quantised, "fp16") == (1, 1)
    assert count_products(quantised, "fp8") == (0, 2)  # float16 is what fp8 leaves beside its own


@pytest.fixture
def ensemble(graph: Made) -> onnx.ModelProto:
    """The logits are the mean of what another segment says and of log softmax(relu(x w) v + b)."""
    rng = np.random.default_rng(5)
    shapes = {"w": (4, 6), "v": (6, 3), "b": (3,)}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="hidden"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "v"], ["m"], name="last"),
        helper.make_node("Add", ["m", "b"], ["own"], name="bias"),
        helper.make_node("LogSoftmax", ["own"], ["log"], name="log"),
        helper.make_node("Add", ["log", "x"], ["sum"], name="sum"),
        helper.make_node("Mul", ["sum", "half"], ["y"], name="mean"),
    ]
    nodes[5].input[1] = "before"
    weights["half"] = np.array(0.5, np.float32)
    inputs: dict[str, Any] = {"x": ["batch", 4], "before": ["batch", 3]}
    return graph(nodes, inputs, {"y": ["batch", 3]}, weights)


def test_the_tail_reaches_back_to_the_last_product(ensemble: onnx.ModelProto, residual: onnx.ModelProto) -> None:
    assert output_layers(ensemble, ["y"]) == {"m", "own", "log", "sum", "y"}
    assert output_layers(residual, ["exit1_outputs"]) == {"exit1_outputs"}
    assert output_layers(residual, []) == frozenset()


def test_no_output_layer_is_rounded(ensemble: onnx.ModelProto) -> None:
    rng = np.random.default_rng(6)
    feed = {"x": rng.normal(size=(32, 4)).astype(np.float32), "before": rng.normal(size=(32, 3)).astype(np.float32)}
    segment = FloatSegment(ensemble, output_layers(ensemble, ["y"]), lambda: iter([feed]))
    rounded = int8(segment)
    names = [node.op_type for node in rounded.graph.node]
    assert names[names.index("LogSoftmax") - 2 :] == ["MatMul", "Add", "LogSoftmax", "Add", "Mul"]
    assert names.count("QuantizeLinear") == 3  # x, and what is before and after the ReLU
    halved = onnx.shape_inference.infer_shapes(fp16(segment)).graph
    types = {value.name: value.type.tensor_type.elem_type for value in halved.value_info}
    assert {name: types[name] for name in ("m", "own", "log", "sum")} == dict.fromkeys(
        ("m", "own", "log", "sum"), TensorProto.FLOAT
    )
    assert types["r/fp16"] == TensorProto.FLOAT16
    for made in (rounded, halved):
        model = made if isinstance(made, onnx.ModelProto) else fp16(segment)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        (output,) = session.run(None, feed)
        (exact,) = onnxruntime.InferenceSession(ensemble.SerializeToString()).run(None, feed)
        assert 0 < np.abs(output - exact).max() < 0.2  # of numbers up to about 4
