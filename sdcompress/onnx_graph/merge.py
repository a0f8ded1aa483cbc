"""Join the segments of a cascade into one ONNX graph that lets samples leave by itself.

After each exit at which samples may leave stands an ``If``. Whoever stays is gathered, the rest of the network runs on
these rows within the branch, and their results are scattered back over the exit's. The ``If`` asks whether anybody
stays: without it the graph would run to its end on no rows at all, which some operators refuse (in onnxruntime 1.32 a
Reshape to (batch, -1) and GroupNormalization) and which costs the start of every node. With a batch of one there is
nothing to gather: the branch is taken or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdcompress.errors import UsageError
from sdcompress.onnx_graph.rename import Renaming, drop_unused
from sdcompress.onnx_graph.trace_score import trace_score
from sdcompress.policies import restore
from sdcompress.policies._base import ExitPolicy
from sdcompress.schema.graphs import ANSWER, EXIT_INDEX, LOGITS
from sdcompress.schema.manifest import ExitSignals, Manifest
from sdcompress.tasks import task_of

__all__ = ["merge"]


def merge(
    manifest: Manifest, segments: Sequence[onnx.ModelProto], thresholds: Sequence[float | None], *, batch_of_one: bool
) -> onnx.ModelProto:
    """One checked graph: images -> the logits, the class and the exit of each.

    Args:
        manifest: of a cascade with a policy.
        segments: its graphs, in order.
        thresholds: of every exit but the last; None: nobody leaves there, and the exit's head is left out.
        batch_of_one: fix the batch to 1, which saves gathering.

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
    merged = _Merged(manifest, segments, thresholds, batch_of_one=batch_of_one)
    logits, exit_index, scope = merged.level(0, {manifest.input.name: manifest.input.name}, [])
    scope.node("Identity", logits, out=LOGITS)
    scope.node("Identity", exit_index, out=EXIT_INDEX)
    scope.node("ArgMax", LOGITS, out=ANSWER, axis=1, keepdims=0)
    batch: int | str = 1 if batch_of_one else manifest.input.shape[0]
    graph = scope.graph(
        "early-exit",
        [
            helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, [batch, len(manifest.classes)]),
            helper.make_tensor_value_info(ANSWER, TensorProto.INT64, [batch]),
            helper.make_tensor_value_info(EXIT_INDEX, TensorProto.INT64, [batch]),
        ],
    )
    shape = [batch, *manifest.input.shape[1:]]
    graph.input.append(helper.make_tensor_value_info(manifest.input.name, TensorProto.FLOAT, shape))
    drop_unused(graph)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(*opset) for opset in sorted(set().union(*opsets))],
        ir_version=max(model.ir_version for model in segments),
        functions={(f.domain, f.name): f for model in segments for f in model.functions}.values(),
    )
    onnx.checker.check_model(model, full_check=True)
    return model


class _Scope:
    """A graph that grows: the whole one, or a branch in it.

    Args:
        prefix: of the names made here, so that no name is in two scopes.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, operator: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """Add a node of one output and return that."""
        out = out or f"{self._prefix}/{operator}-{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [out], name=out, **attributes))
        return out

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """Store a constant and return its name."""
        name = f"{self._prefix}/constant-{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def add(self, nodes: Sequence[onnx.NodeProto], constants: Sequence[onnx.TensorProto]) -> None:
        """Add what others have made."""
        self.nodes += nodes
        self.constants += constants

    def graph(self, name: str, outputs: Sequence[onnx.ValueInfoProto]) -> onnx.GraphProto:
        """What has been added, with these outputs."""
        return helper.make_graph(self.nodes, name, [], outputs, self.constants)


class _Merged:
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
        self._policy: ExitPolicy = restore(manifest.policy.kind, manifest.policy.parameters, len(manifest.exits))
        self._thresholds, self._alone = thresholds, batch_of_one

    def level(
        self, position: int, tensors: Mapping[str, str], history: Sequence[ExitSignals]
    ) -> tuple[str, str, _Scope]:
        """Run from one exit to the next at which somebody may leave, and what comes after it.

        Args:
            position: of the exit to which it goes first.
            tensors: name in the artifact -> name here, of what the exits before have made and the rest needs.
            history: signals of these exits.

        Returns:
            The names of logits [rows, K] and exit_index [rows], and the scope that makes them.
        """
        scope, exits = _Scope(f"exit-{position}"), self._manifest.exits
        tensors, history = dict(tensors), list(history)
        while True:
            self._run(scope, position, tensors)
            logits = tensors[exits[position].logits]
            if position == len(exits) - 1:
                return logits, self._filled(scope, logits, position), scope
            history.append(self._signals(scope, position, tensors))
            threshold = self._thresholds[position]
            if threshold is not None:
                break
            position += 1
        judged = history if self._policy.history else history[-1:]
        nodes, constants, score = trace_score(
            self._policy, position, judged, self._task.signal_names, f"exit-{position}/score"
        )
        scope.add(nodes, constants)
        leaves = scope.node("GreaterOrEqual", score, scope.constant(threshold, np.float32))
        return (*self._fork(scope, position, leaves, tensors, history), scope)

    def _run(self, scope: _Scope, position: int, tensors: dict[str, str]) -> None:
        """The segments up to an exit."""
        exits = self._manifest.exits
        first = exits[position - 1].segment + 1 if position else 0
        for index in range(first, exits[position].segment + 1):
            graph, listed = self._segments[index].graph, self._manifest.segments[index]
            names = {tensor.name: tensors[tensor.name] for tensor in listed.inputs}
            rename = Renaming(f"segment-{index}", names)
            scope.add([rename.node(node) for node in graph.node], [rename.tensor(t) for t in graph.initializer])
            tensors |= {tensor.name: rename.name(tensor.name) for tensor in listed.outputs}

    def _signals(self, scope: _Scope, position: int, tensors: Mapping[str, str]) -> ExitSignals:
        """The exit's signals at its temperature: the segment's own, or computed here."""
        exit_ = self._manifest.exits[position]
        if exit_.signals is not None and exit_.temperature == 1:
            return ExitSignals(values=tensors[exit_.signals.values], decision=tensors[exit_.signals.decision])
        scaled = scope.node("Mul", tensors[exit_.logits], scope.constant(1 / exit_.temperature, np.float32))
        names = ExitSignals(values=f"{scaled}/signals", decision=f"{scaled}/decision")
        scope.add(*self._task.signal_nodes(scaled, names.values, names.decision, decided_by=tensors[exit_.logits]))
        return names

    def _fork(
        self,
        scope: _Scope,
        position: int,
        leaves: str,
        tensors: Mapping[str, str],
        history: Sequence[ExitSignals],
    ) -> tuple[str, str]:
        """The ``If`` after an exit: logits and exit_index, wherever each row leaves."""
        logits = tensors[self._manifest.exits[position].logits]
        index = self._filled(scope, logits, position)
        here = _Scope(f"exit-{position}/all-leave")
        all_leave = self._branch(here, here.node("Identity", logits), here.node("Identity", index))
        kept = {tensor.name: tensors[tensor.name] for tensor in self._manifest.border(position)}
        if self._alone:
            deeper, deeper_index, rest = self.level(position + 1, kept, history)
            branches = {"then_branch": all_leave, "else_branch": self._branch(rest, deeper, deeper_index)}
            condition = leaves
        else:
            rows = scope.node("Squeeze", scope.node("NonZero", scope.node("Not", leaves)), scope.constant([0]))
            gather = _Scope(f"exit-{position}/stay")
            kept = {name: gather.node("Gather", tensor, rows) for name, tensor in kept.items()}
            history = [
                ExitSignals(
                    values=gather.node("Gather", old.values, rows), decision=gather.node("Gather", old.decision, rows)
                )
                for old in history
            ]
            deeper, deeper_index, rest = self.level(position + 1, kept, history)
            gather.add(rest.nodes, rest.constants)
            at = gather.node("Unsqueeze", rows, gather.constant([1]))
            deeper = gather.node("ScatterND", logits, at, deeper)
            deeper_index = gather.node("ScatterND", index, at, deeper_index)
            branches = {"then_branch": self._branch(gather, deeper, deeper_index), "else_branch": all_leave}
            condition = scope.node("Greater", scope.node("Size", rows), scope.constant(0))
        outputs = [f"exit-{position}/if/logits", f"exit-{position}/if/exit_index"]
        scope.nodes.append(helper.make_node("If", [condition], outputs, name=f"exit-{position}/if", **branches))
        return outputs[0], outputs[1]

    def _branch(self, scope: _Scope, logits: str, exit_index: str) -> onnx.GraphProto:
        rows = 1 if self._alone else None
        return scope.graph(
            "branch",
            [
                helper.make_tensor_value_info(logits, TensorProto.FLOAT, [rows, len(self._manifest.classes)]),
                helper.make_tensor_value_info(exit_index, TensorProto.INT64, [rows]),
            ],
        )

    def _filled(self, scope: _Scope, logits: str, position: int) -> str:
        """The exit's position for every row."""
        rows = scope.node("Shape", logits, start=0, end=1)
        value = numpy_helper.from_array(np.array([position], np.int64))
        return scope.node("ConstantOfShape", rows, value=value)
