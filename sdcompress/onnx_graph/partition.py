"""Partition an all-exits ONNX graph into segments, or truncate it at one exit, without a second export.

Segment k holds the ancestors of exit k that no earlier segment holds. Nodes that depend only on weights or shapes are
copied into every segment that needs them. Where a segment lacks the tensor whose shape it needs, the shape comes from
one of its inputs with the same named axis. ``onnx.utils.extract_model`` cuts between tensors instead: it fails where a
later block reads the shape of an early one (ConvNeXt, MaxViT, XCiT and others).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import onnx
from onnx import TensorProto, helper

from sdcompress.errors import UsageError
from sdcompress.onnx_graph.dataflow import Dataflow, Dependence, names_read
from sdcompress.schema.manifest import Tensor

__all__ = ["cut_segments", "prune_heads", "serialize", "tensor_specs"]


def cut_segments(model: onnx.ModelProto, exits: Sequence[str], *, batch: str = "batch") -> tuple[onnx.ModelProto, ...]:
    """Return one checked model for each exit; chained by tensor names they compute what ``model`` computes.

    With one exit the result is the network truncated at it. Heads of exits that are not named are pruned, and all
    stages between two named exits are one segment.

    Args:
        model: the all-exits graph.
        exits: names of the outputs, shallow to deep.
        batch: name of the axis that every tensor between segments must have first, so that rows can exit early.

    Raises:
        UsageError: if the graph cannot be cut at these exits.
    """
    flow = Dataflow(model)
    node_sets = [_SegmentNodes(flow, nodes) for nodes in _nodes_of_exits(flow, exits)]
    models = []
    for index, (nodes, exit_) in enumerate(zip(node_sets, exits, strict=True)):
        later = [name for deeper in node_sets[index + 1 :] for name in deeper.inputs if name in nodes.computed]
        outputs = list(dict.fromkeys([exit_, *later]))
        for name in (*nodes.inputs, *outputs):
            _check_border(flow, name, batch)
        title = f"segment-{index}" if len(exits) > 1 else "model"
        models.append(_assemble(model, flow, nodes, title, outputs))
    return tuple(models)


def prune_heads(model: onnx.ModelProto, exits: Sequence[str]) -> onnx.ModelProto:
    """Return one checked model with these exits as its outputs, without the heads of all others.

    Args:
        model: the all-exits graph.
        exits: names of the outputs, in the order of the outputs.
    """
    flow = Dataflow(model)
    data_nodes = {index for index in flow.ancestors(exits) if flow.kinds[index] is Dependence.DATA}
    return _assemble(model, flow, _SegmentNodes(flow, data_nodes), "model", exits)


def tensor_specs(values: Iterable[onnx.ValueInfoProto]) -> tuple[Tensor, ...]:
    """Return the inputs or outputs of a graph as the manifest lists them."""
    return tuple(
        Tensor.model_validate(
            {
                "name": value.name,
                "dtype": helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
                "shape": tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim),
            }
        )
        for value in values
    )


def serialize(model: onnx.ModelProto) -> bytes:
    """Return the bytes of a model, the same for equal models."""
    return bytes(model.SerializeToString(deterministic=True))


class _SegmentNodes:
    """The nodes of a segment and its inputs.

    Attributes:
        data_nodes: indices of its nodes that depend on the data.
        computed: names of the tensors that these compute.
        inputs: tensors of earlier segments or inputs of the network, in the order of first use.
        copied: indices of nodes on constants and shapes, copied from anywhere in the graph.
    """

    def __init__(self, flow: Dataflow, data_nodes: set[int]) -> None:
        self.data_nodes = data_nodes
        self.computed = {name for index in data_nodes for name in flow.nodes[index].output}
        self.inputs: list[str] = []
        self.copied: set[int] = set()
        pending = deque(name for index in sorted(data_nodes) for name in flow.uses[index])
        visited: set[str] = set()
        while pending:
            name = pending.popleft()
            if name in visited or name in self.computed or name in flow.initializers:
                continue
            visited.add(name)
            index = flow.producer.get(name)
            if index is None or flow.kinds[index] is Dependence.DATA:
                self.inputs.append(name)
                continue
            self.copied.add(index)
            if not _reads_shape(flow, index):  # where a shape is taken from is chosen later
                pending += flow.uses[index]


def _nodes_of_exits(flow: Dataflow, exits: Sequence[str]) -> list[set[int]]:
    assigned: set[int] = set()
    by_exit = []
    for exit_ in exits:
        nodes = {index for index in flow.ancestors([exit_]) - assigned if flow.kinds[index] is Dependence.DATA}
        if flow.producer[exit_] not in nodes:
            raise UsageError(
                f"'{exit_}' is a constant or the same tensor as the outputs of an earlier exit.",
                allowed="exits that each compute outputs of their own from the inputs",
                next_step="place the exits elsewhere (exits.modules in the recipe) or export another layout",
            )
        by_exit.append(nodes)
        assigned |= nodes
    return by_exit


def _reads_shape(flow: Dataflow, index: int) -> bool:
    return flow.nodes[index].op_type in {"Shape", "Size"} and flow.kinds[index] is Dependence.SHAPE


def _check_border(flow: Dataflow, name: str, batch: str) -> None:
    axes = flow.axes(name)
    if not axes or axes[0] != batch:
        raise UsageError(
            f"The tensor '{name}' between two segments has the axes {axes}: its rows are not the samples of the batch, "
            "so that samples could not exit early.",
            allowed=f"tensors whose first axis is '{batch}'",
            next_step="place the exits elsewhere (recipe: exits.modules), or export with '--layout single' or 'all'",
        )


def _assemble(
    model: onnx.ModelProto, flow: Dataflow, nodes: _SegmentNodes, title: str, outputs: Sequence[str]
) -> onnx.ModelProto:
    available = nodes.computed | set(nodes.inputs)
    kept_nodes: list[onnx.NodeProto] = []
    for index in sorted(nodes.data_nodes | nodes.copied):
        node = flow.nodes[index]
        if _reads_shape(flow, index) and node.input[0] not in available:
            kept_nodes += _shape_from(flow, node, nodes.inputs)
        else:
            kept_nodes.append(node)
    used = {name for node in kept_nodes for name in names_read(node)}
    inner = {name for node in kept_nodes for name in node.output} - set(outputs)
    graph = helper.make_graph(
        kept_nodes,
        title,
        [flow.values[name] for name in nodes.inputs],
        [flow.values[name] for name in outputs],
        [tensor for name, tensor in flow.initializers.items() if name in used],
        value_info=[value for name, value in flow.values.items() if name in inner],
    )
    segment = helper.make_model(
        graph,
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
        functions=model.functions,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
    )
    onnx.checker.check_model(segment, full_check=True)
    return segment


def _shape_from(flow: Dataflow, node: onnx.NodeProto, available: Sequence[str]) -> list[onnx.NodeProto]:
    """Nodes that compute ``Shape`` of a tensor outside the segment, from the segment's inputs."""
    axes = flow.axes(node.input[0])
    if axes is None or node.op_type != "Shape":
        raise _shape_unavailable(node)
    limits = {attribute.name: attribute.i for attribute in node.attribute}
    axes = axes[limits.get("start", 0) : limits.get("end", len(axes))]
    if 0 in axes:  # unknown, see Dataflow.axes
        raise _shape_unavailable(node)
    (result,) = node.output
    nodes, sizes = [], []
    for position, axis in enumerate(axes):
        size = f"{result}_axis{position}"
        if isinstance(axis, int):
            value = helper.make_tensor(size, TensorProto.INT64, [1], [axis])
            nodes.append(helper.make_node("Constant", [], [size], name=f"make_{size}", value=value))
        else:
            source, at = _input_with_axis(flow, node, axis, available)
            nodes.append(helper.make_node("Shape", [source], [size], name=f"make_{size}", start=at, end=at + 1))
        sizes.append(size)
    return [*nodes, helper.make_node("Concat", sizes, [result], name=f"make_{result}", axis=0)]


def _input_with_axis(flow: Dataflow, node: onnx.NodeProto, axis: str, available: Sequence[str]) -> tuple[str, int]:
    for name in available:
        axes = flow.axes(name) or []
        if axis in axes:
            return name, axes.index(axis)
    raise _shape_unavailable(node)


def _shape_unavailable(node: onnx.NodeProto) -> UsageError:
    return UsageError(
        f"A later segment needs the shape of '{node.input[0]}', which none of its inputs has.",
        allowed="shapes that follow from its inputs",
        next_step="place the exits elsewhere (recipe: exits.modules), or export with '--layout single' or 'all'",
    )
