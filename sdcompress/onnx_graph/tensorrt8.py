"""Rewrite graphs of opset 16 and 17 for TensorRT 8, and list the operators that its parser does not support.

``TENSORRT_8_5`` is what the parser of TensorRT 8.5.3.1 supports by ``IParser::supportsOperator`` of the real library.
docs/operators.md of onnx/onnx-tensorrt, release 8.5, also lists NonZero, NonMaxSuppression and RoiAlign. They are
plugins, or have shapes that depend on values.

LayerNormalization is not supported. At opset 16 the exporter decomposes it. At 17 it stays one node: TensorRT 8.6
supports it in the right precision, while its parts overflow in float16
(github.com/NVIDIA/TensorRT/issues/2781, 3657).

InstanceNormalization, which GroupNorm becomes at these opsets, is supported by a plugin, so it is decomposed here.
A plan with a plugin loads only where plugins are registered, which the runtime does not do. This plugin also computes
by cuDNN, without which engines are built here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sdcompress.onnx_graph.dataflow import number_attribute
from sdcompress.onnx_graph.edit import drop_unused, replace_nodes

__all__ = ["DYNAMO_OPSET", "TENSORRT_8_5", "decompose_instance_norm", "unsupported_by_8_5"]

DYNAMO_OPSET = 18
"""The first opset of torch's newer exporter, and of what TensorRT 8 does not parse."""

_SUPPORTED = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Celu Clip Concat
    Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu
    Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool
    GlobalMaxPool Greater GreaterOrEqual GridSample HardSigmoid HardSwish Identity If InstanceNormalization IsNaN LRN
    LSTM LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean
    MeanVarianceNormalization Min Mod Mul Neg Not OneHot Or PRelu Pad Pow QuantizeLinear RNN RandomNormal
    RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
    ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence Round Scan
    Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign
    SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where
    Xor
"""

TENSORRT_8_5 = frozenset(_SUPPORTED.split())
"""ONNX operators that the parser supports; whether it supports a node's types and shapes, only a build shows."""


def unsupported_by_8_5(models: Mapping[str, onnx.ModelProto]) -> str:
    """Return the operators that TensorRT 8.5 cannot parse, each with its first node, as text; empty if there is none.

    Args:
        models: file name -> graph.
    """
    first_nodes: dict[str, str] = {}
    for file, model in models.items():
        for node in model.graph.node:
            operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            if operator not in TENSORRT_8_5:
                first_nodes.setdefault(operator, f"{operator} (node '{node.name}' of {file})")
    return ", ".join(first_nodes.values())


def decompose_instance_norm(model: onnx.ModelProto) -> bool:
    """Decompose every InstanceNormalization, in place; returns whether there was one.

    y = scale (x - mean) / sqrt(variance + epsilon) + bias, of every image and channel, as ONNX defines the operator.
    The operators are those of a decomposed LayerNormalization, of which lower precisions keep some in float32.

    Args:
        model: opset 16 or 17, with the axes of all its tensors; the axes of new tensors are not written.
    """
    graph = model.graph
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in (*graph.value_info, *graph.input)}
    constants_by_name = _constants(graph)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        # a scale or a bias that is computed is left for the parser to refuse
        if node.op_type == "InstanceNormalization" and set(node.input[1:]) <= constants_by_name.keys():
            scale, bias = (constants_by_name[name] for name in node.input[1:])
            replacement, constants = _decomposed(node, ranks[node.input[0]], scale, bias)
            nodes += replacement
            graph.initializer.extend(constants)
        else:
            nodes.append(node)
    if len(nodes) == len(graph.node):
        return False
    replace_nodes(graph, nodes)
    drop_unused(graph)
    return True


def _constants(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """Stored tensors by name: initialisers and Constant nodes."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return constants


def _decomposed(
    node: onnx.NodeProto, rank: int, scale: np.ndarray, bias: np.ndarray
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The nodes and constants of one InstanceNormalization of x [B, C, ...]; scale and bias [C]."""
    (result,) = node.output
    epsilon = number_attribute(node, "epsilon", 1e-5)
    constants: dict[str, np.ndarray] = {"two": np.array(2, np.float32), "epsilon": np.array(epsilon, np.float32)}
    spatial = {"axes": list(range(2, rank)), "keepdims": 1}
    nodes: list[onnx.NodeProto] = []

    def add(operator: str, *inputs: str, name: str, **attributes: Any) -> str:
        output = f"{result}/{name}"
        nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    x = node.input[0]
    centred = add("Sub", x, add("ReduceMean", x, name="mean", **spatial), name="centred")
    squares = add("Pow", centred, f"{result}/two", name="squares")
    variance = add("ReduceMean", squares, name="variance", **spatial)
    deviation = add("Sqrt", add("Add", variance, f"{result}/epsilon", name="sum"), name="deviation")
    output = add("Div", centred, deviation, name="normalised")
    for operator, name, value, neutral in (("Mul", "scale", scale, 1), ("Add", "bias", bias, 0)):
        if (value != neutral).any():  # a GroupNorm has its own after the reshaping
            constants[name] = value.reshape(-1, *[1] * (rank - 2))
            output = add(operator, output, f"{result}/{name}", name=f"with-{name}")
    nodes[-1].output[0] = result
    return nodes, [numpy_helper.from_array(value, f"{result}/{name}") for name, value in constants.items()]
