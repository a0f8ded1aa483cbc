"""The stages of an artifact: what must run from one exit to the next, and what of it is needed afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdcompress.policies._base import Float, Signals
from sdcompress.runtime.backends._base import Array, Graph
from sdcompress.schema.manifest import Exit, Manifest
from sdcompress.tasks import Task, task_of

__all__ = ["Stage", "Tensors", "stages"]

Tensors = dict[str, Array]


@dataclass(frozen=True)
class Stage:
    """The way from one exit to the next.

    Attributes:
        graphs: what must run, with the names of its inputs and outputs.
        exit: where the stage ends.
        kept: names of what is needed after this exit.
        task: what the logits mean.
    """

    graphs: tuple[tuple[Graph, tuple[str, ...], tuple[str, ...]], ...]
    exit: Exit
    kept: tuple[str, ...]
    task: Task

    def run(self, tensors: Tensors) -> Float:
        """Run the graphs, add their outputs to the tensors and return the exit's logits, [rows, K]."""
        for graph, inputs, outputs in self.graphs:
            tensors.update(zip(outputs, graph({name: tensors[name] for name in inputs}), strict=True))
        return tensors[self.exit.logits]

    def signals(self, tensors: Tensors, temperature: float) -> Signals:
        """The exit's signals once it has run: from the graph, if it computes them at this temperature."""
        if self.exit.signals is None or temperature != 1:
            return self.task.signals(tensors[self.exit.logits], temperature)
        values = tensors[self.exit.signals.values]
        columns = {name: values[:, at] for at, name in enumerate(self.task.signal_names)}
        return Signals(columns, tensors[self.exit.signals.decision])


def stages(manifest: Manifest, graphs: Sequence[Graph]) -> tuple[Stage, ...]:
    """One stage for each exit.

    Args:
        manifest: of the artifact.
        graphs: one for each of its segments, ready to run.
    """
    parts = [
        (graph, tuple(tensor.name for tensor in segment.inputs), tuple(tensor.name for tensor in segment.outputs))
        for graph, segment in zip(graphs, manifest.segments, strict=True)
    ]
    task = task_of(manifest)
    ends = [exit_.segment + 1 for exit_ in manifest.exits]
    return tuple(
        Stage(tuple(parts[first:end]), exit_, tuple(tensor.name for tensor in manifest.border(position)), task)
        for position, (exit_, first, end) in enumerate(zip(manifest.exits, [0, *ends], ends, strict=False))
    )
