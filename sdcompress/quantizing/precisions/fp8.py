"""8-bit floats (E4M3) in products, float16 between them: TensorRT 10 and 11 on GPUs from compute capability 8.9."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdcompress.onnx_graph.dataflow import Dataflow
from sdcompress.quantizing.abs_max import largest
from sdcompress.quantizing.fills import within_float16
from sdcompress.quantizing.float_cast import typed
from sdcompress.quantizing.opset import at_least
from sdcompress.quantizing.precisions._base import FloatSegment
from sdcompress.quantizing.vanishing import guarded

__all__ = ["fp8"]

_OPSET = 19  # the first with 8-bit floats, and with scales in float16; TensorRT 10.0 reads up to 20
_IR = 9
_CODES = helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN)
_LARGEST = 448.0
_SMALLEST_SCALE = 2.0**-14  # float16 loses digits below; the codes of a smaller tensor are smaller numbers instead
_ZERO = "fp8/zero"  # which says the type of the codes

# ONNX Runtime (1.24, 1.32: WeightBiasQuantization) takes a convolution between pairs for one of integers. It makes the
# bias a multiple of both scales' product, by way of a quotient in float16, which must not become infinite. So the scale
# of the weights is doubled until that holds. The smallest weights, which then have fewer digits, are off by at most 27
# millionths of that bias, even times the largest input.
_MOST_BIAS = 2.0**15

# Where TensorRT has FP8 kernels, and where they gain: see docs/quantize.md, "What TensorRT takes"
_STEP, _FEWEST, _LARGEST_KERNEL = 16, 32, 32

Reads = dict[int, list[int]]  # position of a node -> which of its inputs it reads rounded


def fp8(segment: FloatSegment) -> onnx.ModelProto:
    """QuantizeLinear and DequantizeLinear before products, as NVIDIA documents it for TensorRT; the rest as ``fp16``.

    A code q, one of E4M3's numbers, stands for scale * q. There is one scale for a tensor: the largest absolute value
    (of an activation: on the calibration images) over 448, E4M3's largest number. What is larger becomes that value.
    Small numbers keep their digits, down to 2^-15 of the largest, so that scales for each channel would gain little.
    What makes logits is computed in float32 of float32 weights.
    """
    model = at_least(within_float16(segment.model), _OPSET, ir=_IR)
    flow = Dataflow(model)
    products = _products(flow, segment.tail)
    outputs = [value.name for value in model.graph.output]
    reads = {index: [0, 1] for index in products} | _residuals(flow, products, segment.tail, outputs)
    names = {flow.nodes[index].input[position] for index, positions in reads.items() for position in positions}
    activations = names - flow.initializers.keys()
    reaches = largest(model, activations, segment.feeds(), threads=segment.threads) if activations else {}
    rounded = _rounded(model, flow, reads, _scales(flow, products, reaches))
    return typed(rounded, TensorProto.FLOAT16, segment.tail | guarded(model))


def _products(flow: Dataflow, tail: frozenset[str]) -> list[int]:
    """Positions of the products with stored weights that can be computed in 8-bit floats."""
    return [
        index
        for index, node in enumerate(flow.nodes)
        if node.op_type in {"Conv", "Gemm", "MatMul"}
        and not tail & set(node.output)
        and node.input[0] not in flow.initializers
        and node.input[1] in flow.initializers
        and _has_kernel(node, list(flow.initializers[node.input[1]].dims))
    ]


def _has_kernel(node: onnx.NodeProto, weight: list[int]) -> bool:
    """Whether TensorRT has a kernel for a product: weight [out, in / groups, h, w] of a convolution, else [a, b]."""
    grouped = any(each.name == "group" and each.i != 1 for each in node.attribute)
    return (
        len(weight) == (4 if node.op_type == "Conv" else 2)
        and not grouped
        and all(size >= _FEWEST and size % _STEP == 0 for size in weight[:2])
        and math.prod(weight[2:]) <= _LARGEST_KERNEL
    )


def _residuals(flow: Dataflow, products: list[int], tail: frozenset[str], outputs: list[str]) -> Reads:
    """Which input of a sum is rounded: what is added to a convolution's output, so that both become one kernel.

    Of two convolutions the one at the end of the longer way is not rounded, as in NVIDIA's Model Optimizer.
    """
    readers = Counter(name for uses in flow.uses for name in uses) + Counter(outputs)
    alone = {
        flow.nodes[index].output[0]
        for index in products
        if flow.nodes[index].op_type == "Conv" and readers[flow.nodes[index].output[0]] == 1
    }
    depth: dict[str, int] = {}
    found: Reads = {}
    for index, node in enumerate(flow.nodes):
        for name in node.output:
            depth[name] = 1 + max((depth.get(each, 0) for each in flow.uses[index]), default=0)
        if node.op_type != "Add" or tail & set(node.output) or flow.initializers.keys() & set(node.input):
            continue
        mains = sorted((depth[name], position) for position, name in enumerate(node.input) if name in alone)
        if mains and node.input[0] != node.input[1]:
            found[index] = [1 - mains[-1][1]]
    return found


def _scales(flow: Dataflow, products: list[int], reaches: Mapping[str, float]) -> dict[str, float]:
    """What a code of 1 stands for, for each activation and each weight.

    Args:
        flow: of the float32 graph.
        products: see ``_products``.
        reaches: the largest absolute value of each activation.
    """
    scales = {name: _scale(reach / _LARGEST) for name, reach in reaches.items()}
    for index in products:
        data, weight, *bias = flow.nodes[index].input
        scale = scales.get(weight, _scale(_reach(flow.initializers[weight]) / _LARGEST))
        if bias and bias[0] in flow.initializers:
            least = _reach(flow.initializers[bias[0]]) / scales[data] / _MOST_BIAS
            while scale < least:
                scale *= 2  # weights keep their rounding, unlike under any other factor
        scales[weight] = scale
    return scales


def _scale(wanted: float) -> float:
    """At least so much, and a number that float16 has, so that no type rounds it."""
    wanted = min(max(wanted, _SMALLEST_SCALE), float(np.finfo(np.float16).max))
    near = np.float16(wanted)
    if float(near) < wanted:  # as floats: numpy would round what is wanted to float16 before it compares
        near = np.nextafter(near, np.float16(np.inf))
    return float(near)


def _reach(tensor: onnx.TensorProto) -> float:
    return float(np.abs(numpy_helper.to_array(tensor)).max())


def _rounded(model: onnx.ModelProto, flow: Dataflow, reads: Reads, scales: Mapping[str, float]) -> onnx.ModelProto:
    """A copy in which the nodes read rounded numbers; each tensor is rounded once, for all that read it so."""
    nodes: list[onnx.NodeProto] = []
    known: set[str] = set()
    for index, old in enumerate(flow.nodes):
        node = onnx.NodeProto()
        node.CopyFrom(old)
        for position in reads.get(index, []):
            name = node.input[position]
            node.input[position] = f"{name}/from_fp8"
            if name not in known:
                known.add(name)
                nodes += _pair(name, stored=name in flow.initializers)
        nodes.append(node)
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    made.graph.initializer.append(numpy_helper.from_array(np.zeros((), _CODES), _ZERO))
    for name in sorted(known):
        made.graph.initializer.append(numpy_helper.from_array(np.array(scales[name], np.float32), f"{name}/fp8_scale"))
        if name in flow.initializers:
            array = numpy_helper.to_array(flow.initializers[name]) / scales[name]
            made.graph.initializer.append(numpy_helper.from_array(array.astype(_CODES), f"{name}/fp8"))
    return onnx.shape_inference.infer_shapes(made)


def _pair(name: str, *, stored: bool) -> Iterator[onnx.NodeProto]:
    """The nodes that give what a tensor becomes; of a weight the codes are stored."""
    beside = [f"{name}/fp8_scale", _ZERO]
    if not stored:
        yield helper.make_node("QuantizeLinear", [name, *beside], [f"{name}/fp8"], name=f"round {name}")
    yield helper.make_node("DequantizeLinear", [f"{name}/fp8", *beside], [f"{name}/from_fp8"], name=f"restore {name}")
