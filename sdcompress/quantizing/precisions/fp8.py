"""8-bit floats (E4M3) in products, float16 between them: TensorRT 10 and 11 on GPUs from compute capability 8.9."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdcompress.onnx_graph.dataflow import Dataflow, number_attribute
from sdcompress.onnx_graph.edit import copy_model, replace_nodes
from sdcompress.quantizing.float16_range import clip_fills, vanishing_paths
from sdcompress.quantizing.float_cast import cast_floats
from sdcompress.quantizing.opset import upgrade_opset
from sdcompress.quantizing.precisions._base import FloatSegment, is_product
from sdcompress.quantizing.ranges import abs_max

__all__ = ["fp8"]

_OPSET = 19  # the first with 8-bit floats, and with scales in float16; TensorRT 10.0 reads up to 20
_IR = 9
_CODES = helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN)
_LARGEST = 448.0
_SMALLEST_SCALE = 2.0**-14  # float16 loses digits below; the codes of a smaller tensor are smaller numbers instead
_ZERO = "fp8/zero"  # the zero point, which sets the type of the codes

# ONNX Runtime (1.24, 1.32: WeightBiasQuantization) treats a convolution between pairs as one of integers. It rounds the
# bias to a multiple of the product of both scales, by a quotient in float16, which must stay finite. So the scale of
# the weights is doubled until it does. The smallest weights lose digits: even times the largest input they are off by
# at most 27 millionths of that bias.
_MOST_BIAS = 2.0**15

# Shapes for which TensorRT has FP8 kernels that are faster: see docs/quantize.md, "What TensorRT takes"
_STEP, _FEWEST, _LARGEST_KERNEL = 16, 32, 32

Inputs = dict[int, list[int]]  # position of a node -> positions of its inputs that are quantised


def fp8(segment: FloatSegment) -> onnx.ModelProto:
    """QuantizeLinear and DequantizeLinear before products, as NVIDIA documents it for TensorRT; the rest as ``fp16``.

    A code q, one of E4M3's numbers, means scale * q. Each tensor has one scale: its largest absolute value (of an
    activation: on the calibration images) over 448, E4M3's largest number. Larger values saturate. Small numbers keep
    their digits down to 2^-15 of the largest, so that a scale per channel would gain little. The output layers are
    computed in float32 with float32 weights.
    """
    model = upgrade_opset(clip_fills(segment.model, segment.output_layers), _OPSET, ir=_IR)
    flow = Dataflow(model)
    products = _fp8_products(flow, segment.output_layers)
    outputs = [value.name for value in model.graph.output]
    reads = {index: [0, 1] for index in products} | _residual_inputs(flow, products, segment.output_layers, outputs)
    names = {flow.nodes[index].input[position] for index, positions in reads.items() for position in positions}
    activations = names - flow.initializers.keys()
    largest = abs_max(model, activations, segment.feeds(), threads=segment.threads) if activations else {}
    quantised = _with_pairs(model, flow, reads, _scales(flow, products, largest))
    return cast_floats(quantised, TensorProto.FLOAT16, segment.output_layers | vanishing_paths(model))


def _fp8_products(flow: Dataflow, output_layers: frozenset[str]) -> list[int]:
    """Positions of the products with stored weights that can be computed in 8-bit floats."""
    return [
        index
        for index, node in enumerate(flow.nodes)
        if is_product(node)
        and node.op_type != "ConvTranspose"
        and not output_layers & set(node.output)
        and node.input[0] not in flow.initializers
        and node.input[1] in flow.initializers
        and _has_kernel(node, list(flow.initializers[node.input[1]].dims))
    ]


def _has_kernel(node: onnx.NodeProto, weight: list[int]) -> bool:
    """Whether TensorRT has a kernel for a product: weight [out, in / groups, h, w] of a convolution, else [a, b]."""
    return (
        len(weight) == (4 if node.op_type == "Conv" else 2)
        and number_attribute(node, "group", 1) == 1
        and all(size >= _FEWEST and size % _STEP == 0 for size in weight[:2])
        and math.prod(weight[2:]) <= _LARGEST_KERNEL
    )


def _residual_inputs(flow: Dataflow, products: list[int], output_layers: frozenset[str], outputs: list[str]) -> Inputs:
    """The summands that are quantised: those added to a convolution's output, so that both become one kernel.

    Of two convolutions the one at the end of the longer path is not quantised, as in NVIDIA's Model Optimizer.
    """
    readers = Counter(name for uses in flow.uses for name in uses) + Counter(outputs)
    only_reader = {
        flow.nodes[index].output[0]
        for index in products
        if flow.nodes[index].op_type == "Conv" and readers[flow.nodes[index].output[0]] == 1
    }
    depth: dict[str, int] = {}
    inputs: Inputs = {}
    for index, node in enumerate(flow.nodes):
        for name in node.output:
            depth[name] = 1 + max((depth.get(used, 0) for used in flow.uses[index]), default=0)
        if node.op_type != "Add" or output_layers & set(node.output) or flow.initializers.keys() & set(node.input):
            continue
        candidates = sorted((depth[name], position) for position, name in enumerate(node.input) if name in only_reader)
        if candidates and node.input[0] != node.input[1]:
            inputs[index] = [1 - candidates[-1][1]]
    return inputs


def _scales(flow: Dataflow, products: list[int], largest: Mapping[str, float]) -> dict[str, float]:
    """The scale of each activation and each weight.

    Args:
        flow: of the float32 graph.
        products: see ``_fp8_products``.
        largest: the largest absolute value of each activation.
    """
    scales = {name: _scale(abs_max_ / _LARGEST) for name, abs_max_ in largest.items()}
    for index in products:
        data, weight, *bias = flow.nodes[index].input
        scale = scales.get(weight, _scale(_abs_max(flow.initializers[weight]) / _LARGEST))
        if bias and bias[0] in flow.initializers:
            needed = _abs_max(flow.initializers[bias[0]]) / scales[data] / _MOST_BIAS
            while scale < needed:
                scale *= 2  # a power of two keeps the rounding of the weights
        scales[weight] = scale
    return scales


def _scale(minimum: float) -> float:
    """The smallest float16 number that is at least ``minimum``, so that no type rounds it."""
    minimum = min(max(minimum, _SMALLEST_SCALE), float(np.finfo(np.float16).max))
    scale = np.float16(minimum)
    if float(scale) < minimum:  # as floats: numpy would round the minimum to float16 before it compares
        scale = np.nextafter(scale, np.float16(np.inf))
    return float(scale)


def _abs_max(tensor: onnx.TensorProto) -> float:
    return float(np.abs(numpy_helper.to_array(tensor)).max())


def _with_pairs(model: onnx.ModelProto, flow: Dataflow, reads: Inputs, scales: Mapping[str, float]) -> onnx.ModelProto:
    """A copy in which the nodes read quantised tensors; each tensor has one pair for all its readers."""
    nodes: list[onnx.NodeProto] = []
    quantised: set[str] = set()
    for index, original in enumerate(flow.nodes):
        node = onnx.NodeProto()
        node.CopyFrom(original)
        for position in reads.get(index, []):
            name = node.input[position]
            node.input[position] = f"{name}/from_fp8"
            if name not in quantised:
                quantised.add(name)
                nodes += _pair(name, stored=name in flow.initializers)
        nodes.append(node)
    extended = copy_model(model)
    replace_nodes(extended.graph, nodes)
    extended.graph.initializer.append(numpy_helper.from_array(np.zeros((), _CODES), _ZERO))
    for name in sorted(quantised):
        extended.graph.initializer.append(
            numpy_helper.from_array(np.array(scales[name], np.float32), f"{name}/fp8_scale")
        )
        if name in flow.initializers:
            array = numpy_helper.to_array(flow.initializers[name]) / scales[name]
            extended.graph.initializer.append(numpy_helper.from_array(array.astype(_CODES), f"{name}/fp8"))
    return onnx.shape_inference.infer_shapes(extended)


def _pair(name: str, *, stored: bool) -> Iterator[onnx.NodeProto]:
    """The pair of a tensor; a weight's codes are stored and need no QuantizeLinear."""
    parameters = [f"{name}/fp8_scale", _ZERO]
    if not stored:
        yield helper.make_node("QuantizeLinear", [name, *parameters], [f"{name}/fp8"], name=f"round {name}")
    yield helper.make_node(
        "DequantizeLinear", [f"{name}/fp8", *parameters], [f"{name}/from_fp8"], name=f"restore {name}"
    )
