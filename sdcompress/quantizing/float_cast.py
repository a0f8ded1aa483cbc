"""Cast a float32 graph to float16 or bfloat16, with explicit Cast nodes for strongly typed builders (TensorRT 11).

``onnxruntime.transformers.float16`` (1.32) is not used: it leaves nodes out of order, rounds the outputs of excluded
nodes, and has no bfloat16.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx
from onnx import TensorProto, helper, numpy_helper

from sdcompress.onnx_graph.edit import copy_model
from sdcompress.onnx_graph.resizes import is_interpolation

__all__ = ["FLOAT_ONLY", "cast_floats", "low_precision_tensors"]

# Operators that sum or squash and would lose digits, and those that name their type themselves. Operators without the
# low type are found in ONNX's schemas. Products that replace a Resize are float32 as it is.
FLOAT_ONLY = frozenset(
    {
        *("Softmax", "LogSoftmax", "Exp", "Log", "Pow", "CumSum"),
        *("ReduceSum", "ReduceMean", "ReduceSumSquare", "ReduceL2"),
        *("LayerNormalization", "InstanceNormalization", "GroupNormalization", "BatchNormalization"),
        *("Resize", "Range", "TopK", "ArgMax", "Cast", "CastLike", "Constant", "ConstantOfShape", "If", "Loop", "Scan"),
    }
)

_STANDARD = {"", "ai.onnx"}
_SUFFIX = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}
_SOFTMAX = "softmax_precision"  # of Attention: one node since opset 23


def cast_floats(model: onnx.ModelProto, low_type: int, keep: Collection[str]) -> onnx.ModelProto:
    """Return a copy that computes in a lower float type; its inputs and outputs stay float32.

    A node whose operator lacks that type in ONNX (Celu, or IsInf before opset 20) computes in float32.

    Args:
        model: float32, with inferred shapes.
        low_type: TensorProto.FLOAT16 or BFLOAT16.
        keep: tensors whose nodes compute in float32.
    """
    cast = copy_model(model)
    graph = cast.graph
    opset = next(entry.version for entry in model.opset_import if entry.domain in _STANDARD)
    float_cast = _FloatCast(model.graph, low_type, opset)
    nodes = [new for node in graph.node for new in float_cast.node(node, keep)]
    nodes += float_cast.outputs()
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    used = {name for new in nodes for name in new.input}
    graph.initializer.extend(tensor for name, tensor in float_cast.stored.items() if name in used)
    return onnx.shape_inference.infer_shapes(cast)


def low_precision_tensors(model: onnx.ModelProto, low_type: int) -> frozenset[str]:
    """Return the float32 names of the node outputs that a model computes in a lower type.

    Args:
        model: made by ``cast_floats``; of any other model there are none.
        low_type: TensorProto.FLOAT16 or BFLOAT16.
    """
    ending = f"/{_SUFFIX[low_type]}"
    names = [name for node in model.graph.node for name in node.output]
    return frozenset(name.removesuffix(ending) for name in names if name.endswith(ending))


class _FloatCast:
    """Rewrites nodes one by one and tracks the name of each tensor in each type.

    Attributes:
        stored: initialisers by name, copies in the low type included.
    """

    def __init__(self, graph: onnx.GraphProto, low_type: int, opset: int) -> None:
        self._low_type, self._suffix, self._opset = low_type, _SUFFIX[low_type], opset
        self._type_name = f"tensor({TensorProto.DataType.Name(low_type).lower()})"
        self.stored = {tensor.name: tensor for tensor in graph.initializer}
        values = (*graph.value_info, *graph.input, *graph.output)
        self._floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
        self._floats |= {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT}
        self._outputs = [value.name for value in graph.output]
        self._low_tensors: set[str] = set()  # tensors whose node computes in the low type
        self._cast: set[str] = set()  # names that a Cast computes

    def node(self, old: onnx.NodeProto, keep: Collection[str]) -> Iterator[onnx.NodeProto]:
        """Return the node in its new type, after the casts that it needs."""
        node = onnx.NodeProto()
        node.CopyFrom(old)
        floats = [name for name in (*old.input, *old.output) if name in self._floats]
        float32 = (
            not floats
            or old.op_type in FLOAT_ONLY
            or is_interpolation(old)
            or bool(set(old.output) & set(keep))
            or not self._knows(old)
        )
        for position, name in enumerate(old.input):
            if name in self._floats:
                yield from self._as(name, float32=float32)
                node.input[position] = name if float32 else self._name(name)
        if not float32:
            if node.op_type == "Attention" and all(attribute.name != _SOFTMAX for attribute in node.attribute):
                # its products may be in the low type
                node.attribute.append(helper.make_attribute(_SOFTMAX, TensorProto.FLOAT))
            for position, name in enumerate(old.output):
                if name in self._floats:
                    self._low_tensors.add(name)
                    node.output[position] = self._name(name)
        yield node

    def outputs(self) -> Iterator[onnx.NodeProto]:
        """Return the casts that return the graph's outputs to float32."""
        for name in self._outputs:
            if name in self._floats:
                yield from self._as(name, float32=True)

    def _knows(self, node: onnx.NodeProto) -> bool:
        """Whether an operator has a form in which all its float32 tensors are of the low type."""
        if node.domain not in _STANDARD:
            return False
        schema = onnx.defs.get_schema(node.op_type, self._opset)
        return all(
            self._type_name in formal[min(position, len(formal) - 1)].types  # the last one may stand for several
            for formal, names in ((schema.inputs, node.input), (schema.outputs, node.output))
            for position, name in enumerate(names)
            if name in self._floats
        )

    def _name(self, tensor: str) -> str:
        return f"{tensor}/{self._suffix}"

    def _as(self, name: str, *, float32: bool) -> Iterator[onnx.NodeProto]:
        """The cast that a tensor needs to be available in a type; none if it is."""
        target = name if float32 else self._name(name)
        if target in self._cast or (name in self._low_tensors) != float32:
            return
        self._cast.add(target)
        if name in self.stored:
            array = numpy_helper.to_array(self.stored[name])
            self.stored[target] = numpy_helper.from_array(
                array.astype(helper.tensor_dtype_to_np_dtype(self._low_type)), target
            )
        else:
            source, to = (self._name(name), TensorProto.FLOAT) if float32 else (name, self._low_type)
            yield helper.make_node("Cast", [source], [target], name=f"cast {target}", to=to)
