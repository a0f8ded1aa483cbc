"""Give a float32 graph a narrower type, with casts at its edges: what strongly typed builders such as TensorRT 11 read.

Ours, because ``onnxruntime.transformers.float16`` (1.32) leaves nodes out of order, rounds the output of a node that
it was told to leave alone, and knows no bfloat16.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["FLOAT_ONLY", "narrowed", "typed"]

# What sums or squashes and would lose its digits, and what says its type itself; what has no form in the narrow type is
# found in ONNX's own schemas
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


def typed(model: onnx.ModelProto, narrow: int, keep: Collection[str]) -> onnx.ModelProto:
    """A copy that computes in another type of float; its inputs and outputs stay float32.

    A node whose operator does not know that type (in ONNX, such as Celu, or IsInf before opset 20) computes in float32.

    Args:
        model: float32, with inferred shapes.
        narrow: TensorProto.FLOAT16 or BFLOAT16.
        keep: tensors whose nodes compute in float32.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    opset = next(each.version for each in model.opset_import if each.domain in _STANDARD)
    rewriting = _Rewriting(model.graph, narrow, opset)
    nodes = [node for old in graph.node for node in rewriting.node(old, keep)]
    nodes += rewriting.outputs()
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    graph.initializer.extend(tensor for name, tensor in rewriting.stored.items() if name in used)
    return onnx.shape_inference.infer_shapes(made)


def narrowed(model: onnx.ModelProto, narrow: int) -> frozenset[str]:
    """The float32 names of what nodes give in a narrower type.

    Args:
        model: made by ``typed``; of any other model there are none.
        narrow: TensorProto.FLOAT16 or BFLOAT16.
    """
    ending = f"/{_SUFFIX[narrow]}"
    names = [name for node in model.graph.node for name in node.output]
    return frozenset(name.removesuffix(ending) for name in names if name.endswith(ending))


class _Rewriting:
    """Which name a tensor has in which type.

    Attributes:
        stored: initialisers by name, narrow copies included.
    """

    def __init__(self, graph: onnx.GraphProto, narrow: int, opset: int) -> None:
        self._narrow, self._suffix, self._opset = narrow, _SUFFIX[narrow], opset
        self._type_name = f"tensor({TensorProto.DataType.Name(narrow).lower()})"
        self.stored = {tensor.name: tensor for tensor in graph.initializer}
        values = (*graph.value_info, *graph.input, *graph.output)
        self._floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
        self._floats |= {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT}
        self._outputs = [value.name for value in graph.output]
        self._narrow_made: set[str] = set()  # tensors whose node computes in the narrow type
        self._cast: set[str] = set()  # names that a cast has made

    def node(self, old: onnx.NodeProto, keep: Collection[str]) -> Iterator[onnx.NodeProto]:
        """The node in its new type, after the casts that it needs."""
        node = onnx.NodeProto()
        node.CopyFrom(old)
        floats = [name for name in (*old.input, *old.output) if name in self._floats]
        wide = not floats or old.op_type in FLOAT_ONLY or bool(set(old.output) & set(keep)) or not self._knows(old)
        for position, name in enumerate(old.input):
            if name in self._floats:
                yield from self._as(name, wide=wide)
                node.input[position] = name if wide else self._name(name)
        if not wide and node.op_type == "Attention" and all(each.name != _SOFTMAX for each in node.attribute):
            node.attribute.append(helper.make_attribute(_SOFTMAX, TensorProto.FLOAT))  # its products may be narrow
        if not wide:
            for position, name in enumerate(old.output):
                if name in self._floats:
                    self._narrow_made.add(name)
                    node.output[position] = self._name(name)
        yield node

    def outputs(self) -> Iterator[onnx.NodeProto]:
        """The casts that give the graph's outputs their float32."""
        for name in self._outputs:
            if name in self._floats:
                yield from self._as(name, wide=True)

    def _knows(self, node: onnx.NodeProto) -> bool:
        """Whether an operator has a form in which all its float32 tensors are of the narrow type."""
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

    def _as(self, name: str, *, wide: bool) -> Iterator[onnx.NodeProto]:
        """The cast that makes a tensor known in a type, unless it is."""
        wanted = name if wide else self._name(name)
        if wanted in self._cast or (name in self._narrow_made) != wide:
            return
        self._cast.add(wanted)
        if name in self.stored:
            array = numpy_helper.to_array(self.stored[name])
            self.stored[wanted] = numpy_helper.from_array(
                array.astype(helper.tensor_dtype_to_np_dtype(self._narrow)), wanted
            )
        else:
            source, to = (self._name(name), TensorProto.FLOAT) if wide else (name, self._narrow)
            yield helper.make_node("Cast", [source], [wanted], name=f"cast {wanted}", to=to)
