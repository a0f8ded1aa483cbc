"""Run the segments of an artifact, on numpy arrays or on a device, behind one interface (``Chain``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sdcompress.artifact.certificate import ExecutionTarget
from sdcompress.modalities import Inputs, modality_of
from sdcompress.policies._base import Float, Signals
from sdcompress.runtime.active_rows import Moves
from sdcompress.runtime.backends._base import Array, Graph
from sdcompress.schema.manifest import Exit, Manifest
from sdcompress.tasks import Task, task_of

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ArrayChain", "Chain", "ChainPass"]


Tensors = dict[str, Array]


class ChainPass(Protocol):
    """One batch passing through the chain: its stages run in order, from the first, within the ``with`` block."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release what other calls wait for."""

    def stage(self, position: int) -> None:
        """Run, or set going, what lies between the exit before and this one; the first axis is all allocated rows."""

    def signals(self, position: int, temperature: float) -> Signals:
        """Return the signals of the exit reached last, [allocated]: writable, valid until the end of the pass."""

    def outputs(self, position: int) -> Float:
        """Return the outputs of the exit reached last, [allocated, ...]; filled once ``finish`` was called."""

    def compact(self, position: int, moves: Moves) -> None:
        """Move rows of all tensors that are still needed after this exit, and carry only the first ``moves.rows``."""

    def finish(self) -> None:
        """Wait until all requested outputs are filled."""

    def copied(self, outputs: Float) -> Float:
        """Return these outputs as float32 that outlive the pass."""


class Chain(Protocol):
    """The stages of an artifact, ready to run. Runs of several threads are safe; they may wait for each other."""

    @property
    def where(self) -> ExecutionTarget:
        """Return the execution target: backend, device, plans."""

    @property
    def largest(self) -> int | None:
        """Return the most rows of one run; None: any."""

    def rows(self, rows: int) -> int:
        """Return how many rows are computed for this number of allocated rows."""

    def checked(self, inputs: Any) -> Inputs:
        """Return the inputs as a run takes them; see ``Modality.check``.

        Raises:
            InputError: if a name, dtype or shape is another, or an array lies where this chain cannot read.
        """

    def start(self, inputs: Inputs) -> ChainPass:
        """Return a run over at least one checked row."""

    def move_ms(self, position: int) -> float | None:
        """Return the ms that ``compact`` takes for one row after an exit; None: as long as numpy takes."""


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
        """Run the graphs, add their outputs to the tensors and return the exit's outputs, [rows, ...]."""
        for graph, inputs, outputs in self.graphs:
            tensors.update(zip(outputs, graph({name: tensors[name] for name in inputs}), strict=True))
        return tensors[self.exit.outputs]

    def signals(self, tensors: Tensors, temperature: float) -> Signals:
        """Return the exit's signals once it has run: from the graph, if it computes them at this temperature."""
        if self.exit.signals is None or temperature != 1:
            return self.task.signals(tensors[self.exit.outputs], temperature)
        values = tensors[self.exit.signals.values]
        columns = {name: values[:, at] for at, name in enumerate(self.task.signal_names)}
        return Signals(columns, tensors[self.exit.signals.decision])


def stages(manifest: Manifest, graphs: Sequence[Graph]) -> tuple[Stage, ...]:
    """Return one stage for each exit.

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
        Stage(tuple(parts[first:end]), exit_, tuple(tensor.name for tensor in manifest.live_tensors(position)), task)
        for position, (exit_, first, end) in enumerate(zip(manifest.exits, [0, *ends], ends, strict=False))
    )


class ArrayChain:
    """Tensors as numpy arrays; the graphs are callables on these. A run keeps everything to itself.

    Args:
        manifest: of the artifact.
        graphs: one for each of its segments, ready to run.
        where: what computes them.
    """

    largest: int | None = None

    def __init__(self, manifest: Manifest, graphs: Sequence[Graph], where: ExecutionTarget) -> None:
        self._stages, self._modality, self.where = stages(manifest, graphs), modality_of(manifest), where

    def rows(self, rows: int) -> int:
        """Return the allocated rows: all of them are computed."""
        return rows

    def checked(self, inputs: Any) -> Inputs:
        """C-contiguous, copied only if they were not; see ``Chain.checked``."""
        return self._modality.check(inputs)

    def start(self, inputs: Inputs) -> ArrayPass:
        """Return a run over these arrays."""
        return ArrayPass(self._stages, inputs)

    def move_ms(self, position: int) -> None:
        """Return None: numpy moves the rows."""


class ArrayPass:
    """See ``ChainPass``. Inputs and returned arrays are never modified: compaction copies them first."""

    def __init__(self, stages_: Sequence[Stage], inputs: Inputs) -> None:
        self._stages, self._tensors, self._lent = stages_, dict(inputs.arrays), set(inputs.arrays)
        self._kept: tuple[str, ...] = tuple(inputs.arrays)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def stage(self, position: int) -> None:
        """Run its graphs; first drop the tensors that nothing needs any more."""
        stage = self._stages[position]
        self._tensors = {name: self._tensors[name] for name in self._kept}
        stage.run(self._tensors)
        self._kept = stage.kept

    def signals(self, position: int, temperature: float) -> Signals:
        """Return the signals, from the graph if it computes them at this temperature."""
        return self._stages[position].signals(self._tensors, temperature)

    def outputs(self, position: int) -> Float:
        """Return the outputs, which the stage has computed."""
        name = self._stages[position].exit.outputs
        self._lent.add(name)
        outputs: Float = self._tensors[name]
        return outputs

    def compact(self, position: int, moves: Moves) -> None:
        """Move rows within the arrays, which become shorter views."""
        for name in self._stages[position].kept:
            tensor = self._tensors[name]
            self._tensors[name] = moves.within(tensor.copy() if name in self._lent else tensor)
        self._lent.clear()

    def finish(self) -> None:
        """Do nothing: numpy has finished."""

    def copied(self, outputs: Float) -> Float:
        """Return the outputs uncopied: they outlive the run."""
        return np.asarray(outputs, np.float32)
