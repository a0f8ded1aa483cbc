"""Merge the segments of a cascade into one ONNX graph that exits early by itself.

An ``If`` follows each exit with a threshold. The active rows are gathered, the rest of the network runs on them within
a branch, and their results are scattered over the exit's. The branch is skipped where no row is active: some operators
refuse an empty batch (in onnxruntime 1.32 a Reshape to (batch, -1) and GroupNormalization), and starting every node
costs time. With a batch of one nothing is gathered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdcompress.errors import UsageError
from sdcompress.onnx_graph.edit import NewNodes, Renaming, drop_unused
from sdcompress.onnx_graph.shortcuts import pass_codes, read_parts
from sdcompress.onnx_graph.trace_score import trace_score
from sdcompress.policies import restore
from sdcompress.policies._base import ExitPolicy
from sdcompress.schema.graphs import DECISION, EXIT_INDEX, OUTPUTS
from sdcompress.schema.manifest import ExitSignals, Manifest, Tensor
from sdcompress.tasks import task_of

__all__ = ["merge"]


def merge(
    manifest: Manifest, segments: Sequence[onnx.ModelProto], thresholds: Sequence[float | None], *, batch_of_one: bool
) -> onnx.ModelProto:
    """Return one checked graph from inputs to the outputs, the decision and the exit of each sample.

    Args:
        manifest: of a cascade with a policy.
        segments: its graphs, in order.
        thresholds: of every exit but the last; None: no sample exits there, and the exit's head is left out.
        batch_of_one: fix the batch to 1, so that no rows are gathered.

    Raises:
        UsageError: if the segments need different versions of ONNX's operators, or the policy cannot be traced.
    """
    opsets = {tuple(sorted((opset.domain, opset.version) for opset in model.opset_import)) for model in segments}
    if len({dict(opset)[""] for opset in opsets}) > 1:
        raise UsageError(
            "The segments were exported with different versions of ONNX's operators.",
            allowed="segments of one export",
            next_step="export the cascade again",
        )
    merger = _Merger(manifest, segments, thresholds, batch_of_one=batch_of_one)
    task = task_of(manifest)
    outputs, exit_index, scope = merger.level(0, {tensor.name: tensor.name for tensor in manifest.inputs}, [])
    scope.node("Identity", outputs, out=OUTPUTS)
    scope.node("Identity", exit_index, out=EXIT_INDEX)
    # of these only the decision is an output: drop_unused removes the others
    scope.add(*task.signal_nodes(OUTPUTS, f"{OUTPUTS}/signals", DECISION))
    batch: int | str = 1 if batch_of_one else manifest.inputs[0].shape[0]
    decision_dtype = helper.np_dtype_to_tensor_dtype(task.decision_dtype)
    graph = scope.graph(
        "early-exit",
        [
            helper.make_tensor_value_info(OUTPUTS, TensorProto.FLOAT, [batch, *task.output_shape]),
            helper.make_tensor_value_info(DECISION, decision_dtype, [batch, *task.decision_shape]),
            helper.make_tensor_value_info(EXIT_INDEX, TensorProto.INT64, [batch]),
        ],
    )
    for tensor in manifest.inputs:
        dtype = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
        graph.input.append(helper.make_tensor_value_info(tensor.name, dtype, [batch, *tensor.shape[1:]]))
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(*opset) for opset in sorted(set().union(*opsets))],
        ir_version=max(model.ir_version for model in segments),
        functions={(f.domain, f.name): f for model in segments for f in model.functions}.values(),
    )
    read_parts(model)
    pass_codes(model)
    drop_unused(model.graph)
    onnx.checker.check_model(model, full_check=True)
    return model


class _Scope(NewNodes):
    """A graph under construction: the main graph, or a branch of an ``If``; no name is in two of them."""

    def __init__(self, prefix: str) -> None:
        super().__init__(prefix)
        self.rows = f"{prefix}/rows"  # the name of the batch, which is smaller in a branch
        self.values: list[onnx.ValueInfoProto] = []

    def add(
        self,
        nodes: Sequence[onnx.NodeProto],
        constants: Sequence[onnx.TensorProto],
        values: Sequence[onnx.ValueInfoProto] = (),
    ) -> None:
        """Add finished nodes and constants, and the types and shapes that are known of what the nodes give."""
        self.nodes += nodes
        self.constants += constants
        self.values += values

    def graph(self, name: str, outputs: Sequence[onnx.ValueInfoProto]) -> onnx.GraphProto:
        """Return the graph of all that was added, with these outputs."""
        return helper.make_graph(self.nodes, name, [], outputs, self.constants, value_info=self.values)


class _Merger:
    def __init__(
        self,
        manifest: Manifest,
        segments: Sequence[onnx.ModelProto],
        thresholds: Sequence[float | None],
        *,
        batch_of_one: bool,
    ) -> None:
        assert manifest.policy is not None
        self._manifest, self._segments, self._task = manifest, segments, task_of(manifest)
        policy, exits = manifest.policy, len(manifest.exits)
        self._policy: ExitPolicy = restore(policy.name, policy.parameters, self._task, exits)
        self._thresholds, self._alone = thresholds, batch_of_one
        self._batch, *_ = manifest.inputs[0].shape
        self._axes = {size for tensor in manifest.inputs for size in tensor.shape[1:]}
        self._opset = next(opset.version for opset in segments[0].opset_import if not opset.domain)

    def level(
        self, position: int, tensors: Mapping[str, str], history: Sequence[ExitSignals]
    ) -> tuple[str, str, _Scope]:
        """Add the segments up to the next exit with a threshold, and all levels behind it.

        Args:
            position: of the first exit of this level.
            tensors: name in the artifact -> name here, of tensors of earlier segments that later ones read.
            history: signals of the earlier exits.

        Returns:
            The names of logits [rows, K] and exit_index [rows], and the scope that computes them.
        """
        scope, exits = _Scope(f"exit-{position}"), self._manifest.exits
        tensors, history = dict(tensors), list(history)
        while True:
            self._run(scope, position, tensors)
            logits = tensors[exits[position].outputs]
            if position == len(exits) - 1:
                return logits, self._filled(scope, logits, position), scope
            history.append(self._signals(scope, position, tensors))
            threshold = self._thresholds[position]
            if threshold is not None:
                break
            position += 1
        judged = history if self._policy.history else history[-1:]
        nodes, constants, score = trace_score(
            self._policy, position, judged, self._task, f"exit-{position}/score", opset=self._opset
        )
        scope.add(nodes, constants)
        exits_here = scope.node("GreaterOrEqual", score, scope.constant(threshold, np.float32))
        return (*self._fork(scope, position, exits_here, tensors, history), scope)

    def _run(self, scope: _Scope, position: int, tensors: dict[str, str]) -> None:
        """Add the segments between the exit before and this one."""
        for index in self._manifest.segments_between(position, position):
            graph, listed = self._segments[index].graph, self._manifest.segments[index]
            names = {tensor.name: tensors[tensor.name] for tensor in listed.inputs}
            rename, values = Renaming(f"segment-{index}", names), (*graph.value_info, *graph.output)
            scope.add(
                [rename.node(node) for node in graph.node],
                [rename.tensor(tensor) for tensor in graph.initializer],
                [self._value(value, rename, scope.rows) for value in values],
            )
            tensors |= {tensor.name: rename.name(tensor.name) for tensor in listed.outputs}

    def _value(self, value: onnx.ValueInfoProto, rename: Renaming, rows: str) -> onnx.ValueInfoProto:
        """The type and shape of a tensor of a segment, under its new name.

        onnxruntime fuses a residual sum with the normalisation behind it only where it knows that both have one shape.
        Without shapes a branch rounded otherwise than its segment. The batch of a branch may have fewer rows than that
        around it, and other sizes are known by names that are those of their segment.
        """
        known = onnx.ValueInfoProto()
        known.CopyFrom(value)
        known.name = rename.name(value.name)
        for dim in known.type.tensor_type.shape.dim:
            if dim.dim_param == self._batch:
                dim.CopyFrom(self._rows(rows))
            elif dim.dim_param and dim.dim_param not in self._axes:
                dim.dim_param = rename.name(dim.dim_param)
        return known

    def _gathered(self, tensor: Tensor, rename: Renaming, rows: str) -> onnx.ValueInfoProto:
        """The type and shape of the rows of a tensor that go on."""
        dtype = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
        return self._value(helper.make_tensor_value_info(tensor.name, dtype, tensor.shape), rename, rows)

    def _rows(self, name: str) -> onnx.TensorShapeProto.Dimension:
        dimension = onnx.TensorShapeProto.Dimension
        return dimension(dim_value=1) if self._alone else dimension(dim_param=name)

    def _signals(self, scope: _Scope, position: int, tensors: Mapping[str, str]) -> ExitSignals:
        """The exit's signals at its temperature; added here where the segment does not compute them."""
        exit_ = self._manifest.exits[position]
        if exit_.signals is not None and exit_.temperature == 1:
            return ExitSignals(values=tensors[exit_.signals.values], decision=tensors[exit_.signals.decision])
        scaled = scope.node("Mul", tensors[exit_.outputs], scope.constant(1 / exit_.temperature, np.float32))
        names = ExitSignals(values=f"{scaled}/signals", decision=f"{scaled}/decision")
        scope.add(*self._task.signal_nodes(scaled, names.values, names.decision, decided_by=tensors[exit_.outputs]))
        return names

    def _fork(
        self,
        scope: _Scope,
        position: int,
        exits_here: str,
        tensors: Mapping[str, str],
        history: Sequence[ExitSignals],
    ) -> tuple[str, str]:
        """Add the ``If`` after an exit; returns the names of logits and exit_index of all rows."""
        logits = tensors[self._manifest.exits[position].outputs]
        index = self._filled(scope, logits, position)
        all_exit = _Scope(f"exit-{position}/all-leave")
        all_exit_branch = self._branch(all_exit, all_exit.node("Identity", logits), all_exit.node("Identity", index))
        carried = {tensor.name: tensors[tensor.name] for tensor in self._manifest.live_tensors(position)}
        if self._alone:
            deeper, deeper_index, continuation = self.level(position + 1, carried, history)
            branches = {"then_branch": all_exit_branch, "else_branch": self._branch(continuation, deeper, deeper_index)}
            condition = exits_here
        else:
            rows = scope.node("Squeeze", scope.node("NonZero", scope.node("Not", exits_here)), scope.constant([0]))
            gather = _Scope(f"exit-{position}/stay")
            carried = {name: gather.node("Gather", tensor, rows) for name, tensor in carried.items()}
            rename, live = Renaming(f"exit-{position}/stay", carried), self._manifest.live_tensors(position)
            gather.values += [self._gathered(tensor, rename, f"exit-{position + 1}/rows") for tensor in live]
            history = [
                ExitSignals(
                    values=gather.node("Gather", earlier.values, rows),
                    decision=gather.node("Gather", earlier.decision, rows),
                )
                for earlier in history
            ]
            deeper, deeper_index, continuation = self.level(position + 1, carried, history)
            gather.add(continuation.nodes, continuation.constants, continuation.values)
            at = gather.node("Unsqueeze", rows, gather.constant([1]))
            deeper = gather.node("ScatterND", logits, at, deeper)
            deeper_index = gather.node("ScatterND", index, at, deeper_index)
            branches = {"then_branch": self._branch(gather, deeper, deeper_index), "else_branch": all_exit_branch}
            condition = scope.node("Greater", scope.node("Size", rows), scope.constant(0))
        outputs = [f"exit-{position}/if/logits", f"exit-{position}/if/exit_index"]
        scope.nodes.append(helper.make_node("If", [condition], outputs, name=f"exit-{position}/if", **branches))
        return outputs[0], outputs[1]

    def _branch(self, scope: _Scope, logits: str, exit_index: str) -> onnx.GraphProto:
        rows = 1 if self._alone else None
        return scope.graph(
            "branch",
            [
                helper.make_tensor_value_info(logits, TensorProto.FLOAT, [rows, *self._task.output_shape]),
                helper.make_tensor_value_info(exit_index, TensorProto.INT64, [rows]),
            ],
        )

    def _filled(self, scope: _Scope, logits: str, position: int) -> str:
        """The exit's position, once for each row."""
        rows = scope.node("Shape", logits, start=0, end=1)
        value = numpy_helper.from_array(np.array([position], np.int64))
        return scope.node("ConstantOfShape", rows, value=value)
