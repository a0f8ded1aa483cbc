"""Cut an export into a layout, and write the layout's artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import onnx

from sdcompress.artifact.golden import Golden
from sdcompress.artifact.write import entry, finish
from sdcompress.exporting.graph import BATCH, axis_sizes, output_name
from sdcompress.modalities import Modality
from sdcompress.onnx_graph.describe import describe
from sdcompress.onnx_graph.exit_signals import add_signals
from sdcompress.onnx_graph.macs import macs, parameters
from sdcompress.onnx_graph.partition import cut_segments, prune_heads, serialize, tensor_specs
from sdcompress.schema.manifest import Exit, ExitSignals, Manifest, ParityRecord, Provenance, Segment
from sdcompress.tasks import Task

__all__ = ["ExportFacts", "LayoutGraphs", "LayoutName", "cut_layout", "write_layout"]

LayoutName = Literal["single", "cascade", "all"]


@dataclass(frozen=True)
class LayoutGraphs:
    """The graphs of a layout, before the parity gate.

    Attributes:
        name: of the layout.
        exits: names of its exits, shallow to deep.
        models: file name -> graph, in the order of the cascade.
        signals: exit -> names of its signals, for exits whose graph computes them.
    """

    name: LayoutName
    exits: tuple[str, ...]
    models: Mapping[str, onnx.ModelProto]
    signals: Mapping[str, ExitSignals] = field(default_factory=dict)

    @property
    def outputs(self) -> dict[str, str]:
        """For each exit the name of its outputs."""
        return {exit_: output_name(exit_) for exit_ in self.exits}

    def describe(self, task: Task, modality: Modality) -> None:
        """Write classes, exits and preprocessing into each graph's metadata; see ``describe``."""
        for index, model in enumerate(self.models.values()):
            exits = self.exits[index : index + 1] if self.name == "cascade" else self.exits
            describe(model, task=task, modality=modality, exits=exits)

    @property
    def graphs(self) -> dict[str, bytes]:
        """File name -> bytes."""
        return {name: serialize(model) for name, model in self.models.items()}


@dataclass(frozen=True)
class ExportFacts:
    """The facts that all layouts of one export share.

    Attributes:
        task: what the outputs mean.
        modality: what the network is given.
        metrics: of each exit of the network on the validation split, by its name; empty where that is empty.
        golden: samples with the outputs of all exits of the network, in the order of ``metrics``.
        provenance: of the artifacts.
    """

    task: Task
    modality: Modality
    metrics: Mapping[str, Mapping[str, float]]
    golden: Golden
    provenance: Provenance


def cut_layout(model: onnx.ModelProto, name: LayoutName, exits: tuple[str, ...], task: Task) -> LayoutGraphs:
    """Cut an all-exits graph for a layout with these exits; the heads of all others are pruned.

    Raises:
        UsageError: if the graph cannot be cut there.
    """
    logits = [output_name(exit_) for exit_ in exits]
    if name == "all":
        complete = [output.name for output in model.graph.output] == logits
        return LayoutGraphs(name, exits, {"model.onnx": model if complete else prune_heads(model, logits)})
    graphs = cut_segments(model, logits, batch=BATCH)
    if name == "single":
        return LayoutGraphs(name, exits, {"model.onnx": graphs[0]})
    return _cascade(exits, graphs, task)


def _cascade(exits: tuple[str, ...], graphs: Sequence[onnx.ModelProto], task: Task) -> LayoutGraphs:
    """One segment for each exit; all but the last compute signals."""
    models, signals = [], {}
    for exit_, graph in zip(exits[:-1], graphs[:-1], strict=True):
        model, signals[exit_] = add_signals(graph, exit_, output_name(exit_), task, batch=BATCH)
        models.append(model)
    models.append(graphs[-1])
    return LayoutGraphs(
        "cascade", exits, {f"segment-{index}.onnx": model for index, model in enumerate(models)}, signals
    )


def write_layout(layout: LayoutGraphs, facts: ExportFacts, records: tuple[ParityRecord, ...], folder: Path) -> Manifest:
    """Write an artifact's files and seal it.

    Args:
        layout: graphs that passed the gate.
        facts: of the export.
        records: of the gate.
        folder: an empty folder.
    """
    for name, data in layout.graphs.items():
        (folder / name).write_bytes(data)
    facts.modality.copy_files(folder)
    order = list(facts.metrics)
    outputs = facts.golden.outputs[[order.index(exit_) for exit_ in layout.exits]]
    Golden(facts.golden.examples, facts.golden.targets, outputs).save(folder / "golden.npz", facts.modality)
    exits = [
        Exit(
            name=exit_,
            segment=index if layout.name == "cascade" else 0,
            outputs=output_name(exit_),
            signals=layout.signals.get(exit_),
            metrics=dict(facts.metrics[exit_]),
        )
        for index, exit_ in enumerate(layout.exits)
    ]
    sizes = axis_sizes(facts.modality)
    return finish(
        folder,
        task=facts.task.record,
        outputs=facts.task.outputs,
        modality=facts.modality.record,
        inputs=facts.modality.tensors,
        layout=layout.name,
        segments=[_segment(folder, name, model, sizes) for name, model in layout.models.items()],
        exits=exits,
        golden=entry(folder, "golden.npz"),
        parity=records,
        provenance=facts.provenance,
    )


def _segment(folder: Path, name: str, model: onnx.ModelProto, sizes: Mapping[str, int]) -> Segment:
    return Segment(
        **entry(folder, name).model_dump(),
        inputs=tensor_specs(model.graph.input),
        outputs=tensor_specs(model.graph.output),
        macs=macs(model, sizes),
        parameters=parameters(model),
    )
