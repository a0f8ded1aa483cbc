"""Cut an all-exits ONNX graph into a chain of segments, or down to one exit: graph work only, no second export.

Segment k holds the ancestors of exit k that no earlier segment holds. What depends on weights or shapes only is copied
into every segment that needs it, and the shape of a tensor that a segment does not have is taken from one of its own
inputs that has the same named axis. ``onnx.utils.extract_model`` cuts between tensors instead and fails where a later
block asks for the shape of an early one (ConvNeXt, MaxViT, XCiT and others).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx
from onnx import TensorProto, helper

from sdcompress.errors import UsageError
from sdcompress.onnx_graph.dataflow import Flow, Kind, reads
from sdcompress.schema.manifest import Tensor

__all__ = ["ports", "pruned", "segments", "serialize"]


def segments(model: onnx.ModelProto, exits: Sequence[str], *, batch: str = "batch") -> tuple[onnx.ModelProto, ...]:
    """One checked model for each exit; chained by tensor names they compute what ``model`` computes.

    With one exit the result is the network pruned to it: its ancestors, nothing else. Exits that are not named are
    pruned, and what lies between two that are is one segment.

    Args:
        model: the all-exits graph.
        exits: names of the logits, shallow to deep.
        batch: name of the axis that every tensor between segments must have first, so that rows can leave.

    Raises:
        UsageError: if the graph cannot be cut at these exits.
    """
    flow = Flow(model)
    parts = [_Part(flow, nodes) for nodes in _own_nodes(flow, exits)]
    pieces = []
    for index, (part, exit_) in enumerate(zip(parts, exits, strict=True)):
        later = [name for other in parts[index + 1 :] for name in other.inputs if name in part.made]
        outputs = list(dict.fromkeys([exit_, *later]))
        for name in (*part.inputs, *outputs):
            _check_border(flow, name, batch)
        title = f"segment-{index}" if len(exits) > 1 else "model"
        pieces.append(_assemble(model, flow, part, title, outputs))
    return tuple(pieces)


def pruned(model: onnx.ModelProto, exits: Sequence[str]) -> onnx.ModelProto:
    """One checked model with these exits as its outputs: their ancestors, nothing else.

    Args:
        model: the all-exits graph.
        exits: names of the logits, in the order of the outputs.
    """
    flow = Flow(model)
    own = {index for index in flow.ancestors(exits) if flow.kinds[index] is Kind.DATA}
    return _assemble(model, flow, _Part(flow, own), "model", exits)


def ports(values: Iterable[onnx.ValueInfoProto]) -> tuple[Tensor, ...]:
    """The inputs or outputs of a graph as the manifest writes them."""
    return tuple(
        Tensor(
            name=value.name,
            dtype=helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
            shape=tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim),
        )
        for value in values
    )


def serialize(model: onnx.ModelProto) -> bytes:
    """The bytes of a model; the same model gives the same bytes."""
    return bytes(model.SerializeToString(deterministic=True))


class _Part:
    """The nodes of a segment and what they need.

    Attributes:
        own: indices of its nodes on data.
        made: names of the tensors that these make.
        inputs: data made by earlier segments or given to the network, in the order of first use.
        copied: indices of nodes on constants and shapes, copied from anywhere in the graph.
    """

    def __init__(self, flow: Flow, own: set[int]) -> None:
        self.own = own
        self.made = {name for index in own for name in flow.nodes[index].output}
        self.inputs: list[str] = []
        self.copied: set[int] = set()
        waiting = [name for index in sorted(own) for name in flow.uses[index]]
        seen: set[str] = set()
        while waiting:
            name = waiting.pop(0)
            if name in seen or name in self.made or name in flow.initializers:
                continue
            seen.add(name)
            index = flow.producer.get(name)
            if index is None or flow.kinds[index] is Kind.DATA:
                self.inputs.append(name)
                continue
            self.copied.add(index)
            if not _takes_shape(flow, index):  # where a shape is taken from is chosen later
                waiting += flow.uses[index]


def _own_nodes(flow: Flow, exits: Sequence[str]) -> list[set[int]]:
    placed: set[int] = set()
    own = []
    for exit_ in exits:
        nodes = {index for index in flow.ancestors([exit_]) - placed if flow.kinds[index] is Kind.DATA}
        if flow.producer[exit_] not in nodes:
            raise UsageError(
                f"'{exit_}' is a constant or the same tensor as the logits of an earlier exit.",
                allowed="exits that each compute logits of their own from the image",
                next_step="place the exits elsewhere (exits.at in the recipe) or export another layout",
            )
        own.append(nodes)
        placed |= nodes
    return own


def _takes_shape(flow: Flow, index: int) -> bool:
    return flow.nodes[index].op_type in {"Shape", "Size"} and flow.kinds[index] is Kind.SHAPE


def _check_border(flow: Flow, name: str, batch: str) -> None:
    axes = flow.axes(name)
    if not axes or axes[0] != batch:
        raise UsageError(
            f"The tensor '{name}' between two segments has the axes {axes}: its rows are not the images of the batch, "
            "so sure images could not leave.",
            allowed=f"tensors whose first axis is '{batch}'",
            next_step="place the exits elsewhere (exits.at in the recipe), or export with '--layout single' or 'all'",
        )


def _assemble(model: onnx.ModelProto, flow: Flow, part: _Part, title: str, outputs: Sequence[str]) -> onnx.ModelProto:
    here = part.made | set(part.inputs)
    nodes: list[onnx.NodeProto] = []
    for index in sorted(part.own | part.copied):
        node = flow.nodes[index]
        if _takes_shape(flow, index) and node.input[0] not in here:
            nodes += _shape_from(flow, node, part.inputs)
        else:
            nodes.append(node)
    used = {name for node in nodes for name in reads(node)}
    inner = {name for node in nodes for name in node.output} - set(outputs)
    graph = helper.make_graph(
        nodes,
        title,
        [flow.values[name] for name in part.inputs],
        [flow.values[name] for name in outputs],
        [tensor for name, tensor in flow.initializers.items() if name in used],
        value_info=[value for name, value in flow.values.items() if name in inner],
    )
    piece = helper.make_model(
        graph,
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
        functions=model.functions,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
    )
    onnx.checker.check_model(piece, full_check=True)
    return piece


def _shape_from(flow: Flow, node: onnx.NodeProto, available: Sequence[str]) -> list[onnx.NodeProto]:
    """Nodes that compute ``Shape`` of a tensor that is not here, from inputs that are."""
    axes = flow.axes(node.input[0])
    if axes is None or node.op_type != "Shape":
        raise _no_shape(node)
    limits = {attribute.name: attribute.i for attribute in node.attribute}
    (result,) = node.output
    nodes, parts = [], []
    for position, axis in enumerate(axes[limits.get("start", 0) : limits.get("end", len(axes))]):
        part = f"{result}_axis{position}"
        if isinstance(axis, int):
            value = helper.make_tensor(part, TensorProto.INT64, [1], [axis])
            nodes.append(helper.make_node("Constant", [], [part], name=f"make_{part}", value=value))
        else:
            source, at = _carrier(flow, node, axis, available)
            nodes.append(helper.make_node("Shape", [source], [part], name=f"make_{part}", start=at, end=at + 1))
        parts.append(part)
    return [*nodes, helper.make_node("Concat", parts, [result], name=f"make_{result}", axis=0)]


def _carrier(flow: Flow, node: onnx.NodeProto, axis: str, available: Sequence[str]) -> tuple[str, int]:
    for name in available:
        axes = flow.axes(name) or []
        if axis in axes:
            return name, axes.index(axis)
    raise _no_shape(node)


def _no_shape(node: onnx.NodeProto) -> UsageError:
    return UsageError(
        f"A later segment needs the shape of '{node.input[0]}', which none of its inputs has.",
        allowed="shapes that follow from the batch size",
        next_step="place the exits elsewhere (exits.at in the recipe), or export with '--layout single' or 'all'",
    )
