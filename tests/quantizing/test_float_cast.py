"""Types, casts and numbers of fp16 and bf16."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from sdcompress.errors import UsageError
from sdcompress.quantizing.float_cast import FLOAT_ONLY
from sdcompress.quantizing.precisions._base import FloatSegment, Rewriter
from sdcompress.quantizing.precisions.bf16 import bf16
from sdcompress.quantizing.precisions.fp8 import fp8
from sdcompress.quantizing.precisions.fp16 import fp16

Made = Callable[..., onnx.ModelProto]
Segment = Callable[..., FloatSegment]


def types(model: onnx.ModelProto) -> dict[str, int]:
    """The type of every tensor."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


@pytest.mark.parametrize(("precision", "narrow"), [(fp16, TensorProto.FLOAT16), (bf16, TensorProto.BFLOAT16)])
def test_all_but_the_logits_is_narrow_and_all_borders_are_float(
    residual: onnx.ModelProto, segment_of: Segment, precision: Callable, narrow: int
) -> None:
    model = precision(segment_of(residual, [], ("exit1_outputs",)))
    onnx.checker.check_model(model, full_check=True)
    dtypes = types(model)
    assert {dtypes[v.name] for v in (*model.graph.input, *model.graph.output)} == {TensorProto.FLOAT}
    assert [v.name for v in model.graph.output] == ["border", "exit1_outputs"]
    for node in model.graph.node:
        wanted = TensorProto.FLOAT if node.name == "last" else narrow
        if node.op_type != "Cast":
            assert {dtypes[name] for name in (*node.input, *node.output)} == {wanted}, node.name
    makers = {name: node for node in model.graph.node for name in node.output}
    assert makers["exit1_outputs"].op_type == "Gemm"  # not a cast of something narrow
    assert sum(node.op_type == "Cast" for node in model.graph.node) == 3  # in, to the border, to the last layer


def test_numbers_are_rounded_to_half_precision(graph: Made, segment_of: Segment) -> None:
    """1 + 2^-11 is the middle between two halves and goes to the even one, 1; 1/3 becomes 0.33325195."""
    weights = {"w": np.array([[1 / 3]], np.float32), "v": np.array([[1.0]], np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("MatMul", ["y", "v"], ["z"])]
    model = fp16(segment_of(graph(nodes, {"x": ["batch", 1]}, {"z": ["batch", 1]}, weights), [], ("z",)))
    x = np.array([[1 + 2.0**-11], [1.0]], np.float32)
    outputs = ReferenceEvaluator(model).run(None, {"x": x})[0]
    np.testing.assert_array_equal(outputs, np.full((2, 1), np.float16(1 / 3), np.float32))
    # on a CPU ONNX Runtime computes in float32 and leaves out what rounding it may
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x})[0], outputs, rtol=2.0**-10)


def test_numbers_are_rounded_to_brain_floats(graph: Made, segment_of: Segment) -> None:
    """Seven bits of fraction: 1 + 2^-8 goes to 1, and 1/3 becomes 0.33398438."""
    weights = {"w": np.array([[1 / 3]], np.float32), "v": np.array([[1.0]], np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("MatMul", ["y", "v"], ["z"])]
    model = bf16(segment_of(graph(nodes, {"x": ["batch", 1]}, {"z": ["batch", 1]}, weights), [], ("z",)))
    outputs = ReferenceEvaluator(model).run(None, {"x": np.array([[1 + 2.0**-8], [1.0]], np.float32)})[0]
    np.testing.assert_array_equal(outputs, np.full((2, 1), 0.333984375, np.float32))
    assert {opset.version for opset in model.opset_import} == {22}


def test_a_weight_of_both_kinds_of_reader_is_there_in_both_types(graph: Made, segment_of: Segment) -> None:
    weights = {"w": np.eye(3, dtype=np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("MatMul", ["y", "w"], ["z"])]
    model = fp16(segment_of(graph(nodes, {"x": ["batch", 3]}, {"z": ["batch", 3]}, weights), [], ("z",)))
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert stored == {"w": TensorProto.FLOAT, "w/fp16": TensorProto.FLOAT16}


def test_a_layer_norm_of_opset_16_takes_its_means_and_squares_in_float32(graph: Made, segment_of: Segment) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], name="mean"),
        helper.make_node("Sub", ["x", "mean"], ["c"], name="centre"),
        helper.make_node("Pow", ["c", "two"], ["squares"], name="squares"),
        helper.make_node("ReduceMean", ["squares"], ["y"], axes=[1], name="variance"),
    ]
    model = graph(nodes, {"x": ["batch", 4]}, {"y": ["batch", 1]}, {"two": np.array(2, np.float32)}, opset=16)
    quantised = fp16(segment_of(model, []))
    dtypes = types(quantised)
    for node in quantised.graph.node:
        if node.op_type != "Cast":
            wanted = TensorProto.FLOAT16 if node.name == "centre" else TensorProto.FLOAT
            assert {dtypes[name] for name in (*node.input, *node.output)} == {wanted}, node.name


def test_attention_as_one_node_takes_its_softmax_in_float32(graph: Made, segment_of: Segment) -> None:
    heads: list[int | str] = ["batch", 2, 5, 4]
    nodes = [helper.make_node("Attention", ["x", "x", "x"], ["y"], name="attention")]
    quantised = fp16(segment_of(graph(nodes, {"x": heads}, {"y": heads}, {}, opset=23), []))
    (attention,) = [node for node in quantised.graph.node if node.op_type == "Attention"]
    assert {each.name: each.i for each in attention.attribute} == {"softmax_precision": TensorProto.FLOAT}
    onnx.checker.check_model(quantised, full_check=True)
    x = np.random.default_rng(0).normal(size=(3, 2, 5, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(quantised.SerializeToString(), providers=["CPUExecutionProvider"])
    exact = ReferenceEvaluator(graph(nodes, {"x": heads}, {"y": heads}, {}, opset=23)).run(None, {"x": x})[0]
    np.testing.assert_allclose(session.run(None, {"x": x})[0], exact, atol=0.005)


def test_brain_floats_need_a_newer_format_than_an_export_has(graph: Made, segment_of: Segment) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = graph([node], {"x": ["batch", 1]}, {"y": ["batch", 1]}, {"w": np.ones((1, 1), np.float32)}, opset=18, ir=9)
    quantised = bf16(segment_of(model, []))
    assert (quantised.ir_version, quantised.opset_import[0].version) == (10, 22)
    assert (model.ir_version, model.opset_import[0].version) == (9, 18)
    onnx.checker.check_model(quantised, full_check=True)


@pytest.mark.parametrize(("precision", "needs"), [(bf16, 22), (fp8, 19)])
@pytest.mark.parametrize("opset", [16, 17])
def test_an_export_for_older_runtimes_is_not_made_unreadable_to_them(
    graph: Made, segment_of: Segment, opset: int, precision: Rewriter, needs: int
) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    weights = {"w": np.ones((32, 32), np.float32)}
    model = graph([node], {"x": ["batch", 32]}, {"y": ["batch", 32]}, weights, opset=opset, ir=8)
    with pytest.raises(UsageError, match=f"opset {opset}, .*; this precision needs {needs}") as caught:
        precision(segment_of(model, [np.ones((1, 32), np.float32)]))
    assert "fp16" in caught.value.next_step
    assert fp16(segment_of(model, [])).opset_import[0].version == opset


def unary(opset: int) -> list[str]:
    """Every operator of ONNX that may be called with one float32 tensor and nothing else, and gives one."""
    found = []
    for name in sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}):
        try:
            schema = onnx.defs.get_schema(name, opset)
        except onnx.defs.SchemaError:  # newer
            continue
        takes_one = schema.min_input == 1 and schema.min_output <= 1 and "tensor(float)" in schema.inputs[0].types
        needs_nothing = not any(each.required for each in schema.attributes.values())
        if takes_one and needs_nothing and "tensor(float)" in schema.outputs[0].types and not schema.deprecated:
            found.append(name)
    return found


@pytest.mark.parametrize("opset", [16, 18, 20, 23])
def test_every_operator_is_narrow_or_stays_float32(opset: int, segment_of: Segment) -> None:
    """Not every one has a form in float16: Celu has none, and IsInf only since opset 20."""
    seen = set()
    for operator in unary(opset):
        nodes = [
            helper.make_node("Neg", ["x"], ["n"]),
            helper.make_node(operator, ["n"], ["o"]),
            helper.make_node("Neg", ["o"], ["y"]),
        ]
        ports = (
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4, 4, 4] if name == "x" else None)]
            for name in ("x", "y")
        )
        inside = helper.make_graph(nodes, "one", *ports)
        model = helper.make_model(inside, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        try:
            model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
            continue  # needs another shape
        seen.add(operator)
        quantised = fp16(segment_of(model, []))
        onnx.checker.check_model(quantised, full_check=True)
        negations = [node for node in quantised.graph.node if node.op_type == "Neg"]
        assert {types(quantised)[node.output[0]] for node in negations} == {TensorProto.FLOAT16}, operator
    assert {"Celu", "Relu", "Sqrt", "Softmax"} <= seen
    assert len(seen) > 60


def test_an_operator_without_float16_computes_in_float32(graph: Made, segment_of: Segment) -> None:
    """Celu, and torch.nan_to_num as it is exported: IsInf asks of infinity, Where puts a number there."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Celu", ["c"], ["e"], alpha=0.5, name="celu"),
        helper.make_node("IsInf", ["e"], ["infinite"], name="isinf"),
        helper.make_node("Where", ["infinite", "zero", "e"], ["y"], name="where"),
    ]
    weights = {"w": np.ones((1, 1, 1, 1), np.float32), "zero": np.zeros((), np.float32)}
    shape: list[int | str] = ["batch", 1, 1, 4]
    quantised = fp16(segment_of(graph(nodes, {"x": shape}, {"y": shape}, weights), []))
    dtypes = types(quantised)
    by_name = {node.name: node for node in quantised.graph.node}
    wide = {name: {dtypes[each] for each in by_name[name].input} for name in ("conv", "celu", "isinf")}
    assert wide == {"conv": {TensorProto.FLOAT16}, "celu": {TensorProto.FLOAT}, "isinf": {TensorProto.FLOAT}}
    assert dtypes[by_name["where"].output[0]] == TensorProto.FLOAT16
    x = np.array([[[[-2.0, -0.5, 0.5, 2.0]]]], np.float32)
    session = onnxruntime.InferenceSession(quantised.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = np.where(x > 0, x, 0.5 * np.expm1(x / 0.5))
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, atol=1e-3)


UNARY = ("Relu", "Sigmoid", "Tanh", "Softmax", "Neg", "Exp", "Identity", "LogSoftmax")


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_graph_is_well_typed_and_close(data: st.DataObject, graph: Made) -> None:
    """Random chains with branches: every node reads one of the tensors so far, sums read two."""
    tensors, nodes = ["x"], []
    for position in range(data.draw(st.integers(1, 8))):
        operator = data.draw(st.sampled_from((*UNARY, "Add", "MatMul")))
        inputs = [data.draw(st.sampled_from(tensors))]
        inputs += [data.draw(st.sampled_from(tensors))] if operator == "Add" else ["w"] if operator == "MatMul" else []
        tensors.append(f"t{position}")
        nodes.append(helper.make_node(operator, inputs, [tensors[-1]], name=f"n{position}"))
    outputs = sorted({tensors[-1], data.draw(st.sampled_from(tensors[1:]))})
    keep = tuple(name for name in outputs if data.draw(st.booleans()))
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    weights = {"w": rng.normal(scale=0.3, size=(4, 4)).astype(np.float32)}
    model = graph(nodes, {"x": ["batch", 4]}, {name: ["batch", 4] for name in outputs}, weights)
    quantised = fp16(FloatSegment(model, frozenset(keep), lambda: iter([])))
    onnx.checker.check_model(quantised, full_check=True)
    dtypes = types(quantised)
    for node in quantised.graph.node:
        if node.op_type in FLOAT_ONLY - {"Cast"} or set(node.output) & set(keep):
            assert {dtypes[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT}
        elif node.op_type != "Cast":
            assert {dtypes[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT16}
    x = rng.uniform(-1, 1, size=(3, 4)).astype(np.float32)
    exact, close = (ReferenceEvaluator(model_).run(None, {"x": x}) for model_ in (model, quantised))
    for one, other in zip(exact, close, strict=True):
        assert other.dtype == np.float32
        np.testing.assert_allclose(other, one, rtol=0.05, atol=0.05 * max(1.0, float(np.abs(one).max())))


def test_the_model_that_was_given_is_left_alone(residual: onnx.ModelProto, segment_of: Segment) -> None:
    before = residual.SerializeToString(deterministic=True)
    first = fp16(segment_of(residual, [], ("exit1_outputs",))).SerializeToString(deterministic=True)
    assert first == fp16(segment_of(residual, [], ("exit1_outputs",))).SerializeToString(deterministic=True)
    assert residual.SerializeToString(deterministic=True) == before
    weights = {t.name: numpy_helper.to_array(t).dtype for t in onnx.load_from_string(first).graph.initializer}
    assert weights["w0/fp16"] == np.float16
