"""One layout of an export: its graphs, its exits, its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import onnx

from sdcompress.artifact.card import card
from sdcompress.artifact.golden import Golden
from sdcompress.artifact.write import entry, seal
from sdcompress.exporting.graph import BATCH, logits_name
from sdcompress.onnx_graph.describe import describe
from sdcompress.onnx_graph.exit_signals import add_signals
from sdcompress.onnx_graph.macs import macs, parameters
from sdcompress.onnx_graph.partition import ports, pruned, segments, serialize
from sdcompress.schema.manifest import Exit, ExitSignals, Input, Manifest, ParityRecord, Preprocess, Provenance, Segment
from sdcompress.tasks import Task

__all__ = ["Facts", "Layout", "LayoutName", "cut", "write"]

LayoutName = Literal["single", "cascade", "all"]


@dataclass(frozen=True)
class Layout:
    """Graphs ready to be proved and written.

    Attributes:
        name: of the layout.
        exits: names of its exits, shallow to deep.
        models: file name -> graph, in the order of the chain.
        signals: exit -> names of its signals, of those whose graph computes them.
    """

    name: LayoutName
    exits: tuple[str, ...]
    models: Mapping[str, onnx.ModelProto]
    signals: Mapping[str, ExitSignals] = field(default_factory=dict)

    @property
    def logits(self) -> dict[str, str]:
        """For each exit the name of its logits."""
        return {exit_: logits_name(exit_) for exit_ in self.exits}

    def describe(self, classes: tuple[str, ...], preprocess: Preprocess) -> None:
        """Write into each graph what its tensors mean; see ``describe``."""
        for index, model in enumerate(self.models.values()):
            exits = self.exits[index : index + 1] if self.name == "cascade" else self.exits
            describe(model, classes=classes, exits=exits, preprocess=preprocess)

    @property
    def graphs(self) -> dict[str, bytes]:
        """File name -> bytes."""
        return {name: serialize(model) for name, model in self.models.items()}


@dataclass(frozen=True)
class Facts:
    """What all layouts of one export say alike.

    Attributes:
        classes: K names.
        network_input: the input and its preprocessing.
        accuracy: of each exit of the network on the validation split, by its name.
        ece: likewise.
        golden: samples with the logits of all exits of the network, in the order of ``accuracy``.
        provenance: where it all comes from.
    """

    classes: tuple[str, ...]
    network_input: Input
    accuracy: Mapping[str, float | None]
    ece: Mapping[str, float | None]
    golden: Golden
    provenance: Provenance


def cut(model: onnx.ModelProto, name: LayoutName, exits: tuple[str, ...], task: Task) -> Layout:
    """Cut an all-exits graph for a layout with these exits; the others are pruned.

    Raises:
        UsageError: if the graph cannot be cut there.
    """
    logits = [logits_name(exit_) for exit_ in exits]
    if name == "all":
        whole = [output.name for output in model.graph.output] == logits
        return Layout(name, exits, {"model.onnx": model if whole else pruned(model, logits)})
    pieces = segments(model, logits, batch=BATCH)
    if name == "single":
        return Layout(name, exits, {"model.onnx": pieces[0]})
    return _cascade(exits, pieces, task)


def _cascade(exits: tuple[str, ...], pieces: Sequence[onnx.ModelProto], task: Task) -> Layout:
    """One segment for each exit; all but the last, which takes everybody, say how sure they are."""
    models, signals = [], {}
    for exit_, piece in zip(exits[:-1], pieces[:-1], strict=True):
        model, signals[exit_] = add_signals(piece, exit_, logits_name(exit_), task, batch=BATCH)
        models.append(model)
    models.append(pieces[-1])
    return Layout("cascade", exits, {f"segment-{index}.onnx": model for index, model in enumerate(models)}, signals)


def write(layout: Layout, facts: Facts, records: tuple[ParityRecord, ...], folder: Path) -> Manifest:
    """Write an artifact's files and seal it.

    Args:
        layout: graphs that passed the gate.
        facts: what to say about them.
        records: the gate's figures.
        folder: the empty folder to write in.
    """
    for name, data in layout.graphs.items():
        (folder / name).write_bytes(data)
    order = list(facts.accuracy)
    logits = facts.golden.logits[[order.index(exit_) for exit_ in layout.exits]]
    Golden(facts.golden.images, facts.golden.labels, logits).save(folder / "golden.npz")
    exits = [
        Exit(
            name=exit_,
            segment=index if layout.name == "cascade" else 0,
            logits=logits_name(exit_),
            signals=layout.signals.get(exit_),
            accuracy=facts.accuracy[exit_],
            ece=facts.ece[exit_],
        )
        for index, exit_ in enumerate(layout.exits)
    ]
    listed = [_segment(folder, name, model) for name, model in layout.models.items()]
    text = card(
        layout=layout.name,
        classes=facts.classes,
        network_input=facts.network_input,
        segments=listed,
        exits=exits,
        parity=records,
        provenance=facts.provenance,
    )
    (folder / "README.md").write_text(text, encoding="utf-8", newline="\n")
    return seal(
        folder,
        layout=layout.name,
        classes=facts.classes,
        input=facts.network_input,
        segments=listed,
        exits=exits,
        golden=entry(folder, "golden.npz"),
        card=entry(folder, "README.md"),
        parity=records,
        provenance=facts.provenance,
    )


def _segment(folder: Path, name: str, model: onnx.ModelProto) -> Segment:
    return Segment(
        **entry(folder, name).model_dump(),
        inputs=ports(model.graph.input),
        outputs=ports(model.graph.output),
        macs=macs(model, batch=BATCH),
        parameters=parameters(model),
    )
