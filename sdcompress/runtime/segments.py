"""Run the segments of an artifact: the interface of all executors, and that over numpy arrays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from copy import copy
from dataclasses import dataclass, replace
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sdcompress.artifact.execution_target import ExecutionTarget
from sdcompress.modalities import Inputs, modality_of
from sdcompress.policies._base import Float, Signals
from sdcompress.runtime.active_rows import Moves
from sdcompress.runtime.backends._base import Array, Graph
from sdcompress.runtime.headless import joinable, stretches
from sdcompress.schema.manifest import Exit, Manifest, Segment
from sdcompress.tasks import Task, task_of

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ArrayExecutor", "Executor", "ForwardPass", "LoadedLater", "Stage"]


Tensors = dict[str, Array]


class ForwardPass(Protocol):
    """One batch on its way through the stages, which run in order, from the first, within the ``with`` block."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release what other calls wait for."""

    def stage(self, exit_index: int) -> None:
        """Run, or queue, the stage that ends at an exit; the first axis is all allocated rows."""

    def signals(self, exit_index: int, temperature: float) -> Signals:
        """Return the signals of the exit reached last, [allocated]: writable, valid until the end of the pass."""

    def outputs(self, exit_index: int) -> Float:
        """Return the outputs of the exit reached last, [allocated, ...]; filled once ``finish`` was called."""

    def compact(self, exit_index: int, moves: Moves) -> None:
        """Move rows of all tensors that are needed after this exit, and carry only the first ``moves.rows``."""

    def finish(self) -> None:
        """Wait until all requested outputs are filled."""

    def copied(self, outputs: Float) -> Float:
        """Return these outputs as float32 that outlive the pass."""


class Executor(Protocol):
    """Runs the stages of an artifact. Passes of several threads are safe; they may wait for each other."""

    @property
    def execution_target(self) -> ExecutionTarget:
        """Return backend, device and plans."""

    @property
    def largest(self) -> int | None:
        """Return the most rows of one pass; None: any."""

    def rows(self, rows: int) -> int:
        """Return how many rows are computed for a number of allocated rows."""

    def checked(self, inputs: Any) -> Inputs:
        """Return the inputs as a pass takes them; see ``Modality.check``.

        Raises:
            InputError: if a name, dtype or shape is another, or an array lies where this executor cannot read.
        """

    def start(self, inputs: Inputs) -> ForwardPass:
        """Return a pass over at least one checked row."""

    def skipping(self, exits: Collection[int]) -> Executor:
        """Return an executor whose passes never give signals and outputs of some exits, and may save their heads.

        Args:
            exits: indices; not the last exit.
        """

    def move_ms(self, exit_index: int) -> float | None:
        """Return the ms that ``compact`` takes for one row after an exit; None: as long as numpy takes."""


@dataclass(frozen=True)
class Stage:
    """The part of the network between one exit and the next.

    Attributes:
        graphs: to run in order, each with the names of its inputs and outputs.
        exit: at its end.
        kept: names of the tensors that are needed after this exit.
        task: the meaning of the outputs.
    """

    graphs: tuple[tuple[Graph, tuple[str, ...], tuple[str, ...]], ...]
    exit: Exit
    kept: tuple[str, ...]
    task: Task

    def run(self, tensors: Tensors) -> None:
        """Run the graphs and add their outputs to the tensors."""
        for graph, inputs, outputs in self.graphs:
            tensors.update(zip(outputs, graph({name: tensors[name] for name in inputs}), strict=True))

    def signals(self, tensors: Tensors, temperature: float) -> Signals:
        """Return the exit's signals after ``run``: from the graph, if it computes them at this temperature."""
        if self.exit.signals is None or temperature != 1:
            return self.task.signals(tensors[self.exit.outputs], temperature)
        return self.task.signals_of(tensors[self.exit.signals.values], tensors[self.exit.signals.decision])


class LoadedLater:
    """A graph that is loaded when it is first called, such as one with a head that no sample needs.

    Args:
        load: returns the graph.
    """

    def __init__(self, load: Callable[[], Graph]) -> None:
        self._load, self._lock = load, Lock()
        self._graph: Graph | None = None

    def __call__(self, tensors: Tensors) -> Sequence[Array]:
        """Run the graph."""
        return self.loaded()(tensors)

    def loaded(self) -> Graph:
        """Return the graph, which is loaded now if it was not before."""
        if self._graph is None:
            with self._lock:
                self._graph = self._graph or self._load()
        return self._graph


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
    return tuple(
        Stage(
            tuple(parts[index] for index in manifest.segments_between(k, k)),
            exit_,
            tuple(tensor.name for tensor in manifest.live_tensors(k)),
            task,
        )
        for k, exit_ in enumerate(manifest.exits)
    )


class ArrayExecutor:
    """An ``Executor`` over numpy arrays; the graphs are callables on these. Passes share nothing.

    Args:
        manifest: of the artifact.
        graphs: one for each of its segments, ready to run.
        execution_target: of the graphs.
        headless: returns one graph of neighbouring segments that gives only the outputs of these names, or None;
            None: there are none.
    """

    largest: int | None = None

    def __init__(
        self,
        manifest: Manifest,
        graphs: Sequence[Graph],
        execution_target: ExecutionTarget,
        headless: Callable[[Sequence[Segment], Collection[str]], Graph | None] | None = None,
    ) -> None:
        self.stages, self._modality = stages(manifest, graphs), modality_of(manifest)
        self.execution_target = execution_target
        self._manifest, self._headless = manifest, headless
        self._lock, self._graphs = Lock(), dict[tuple[str, tuple[str, ...]], Graph | None]()

    def rows(self, rows: int) -> int:
        """Return the allocated rows: all of them are computed."""
        return rows

    def checked(self, inputs: Any) -> Inputs:
        """Return C-contiguous arrays, copied only if they were not; see ``Executor.checked``."""
        return self._modality.check(inputs)

    def start(self, inputs: Inputs) -> ArrayForwardPass:
        """Return a pass over these arrays."""
        return ArrayForwardPass(self.stages, inputs)

    def skipping(self, exits: Collection[int]) -> ArrayExecutor:
        """Return an executor that computes no head of some exits, and one graph from each other exit to the next.

        All of its graphs are loaded, also those that no joined graph takes the place of.
        """
        if not exits or self._headless is None:
            return self
        skipping, chosen = copy(self), list[Stage]()
        for first, last in stretches(len(self.stages), exits):
            chosen += self._one_graph(first, last) or [*map(self._without_head, range(first, last)), self.stages[last]]
        for graph in (graph for stage in chosen for graph, *_ in stage.graphs):
            if isinstance(graph, LoadedLater):
                graph.loaded()
        skipping.stages = tuple(chosen)
        return skipping

    def without_heads(self, exits: Collection[int]) -> tuple[Stage, ...]:
        """Return the stages, those of some exits without a head; each runs by itself, unlike those of ``skipping``."""
        if self._headless is None:
            return self.stages
        return tuple(self._without_head(k) if k in exits else stage for k, stage in enumerate(self.stages))

    def _one_graph(self, first: int, last: int) -> list[Stage]:
        """Return the stages before an exit so that they run as one graph at its end; [] where there is none.

        Which precisions may be joined, ``joinable`` says; which graphs, ``joined``.
        """
        segments = [self._manifest.segments[index] for index in self._manifest.segments_between(first, last)]
        several = len({exit_.segment for exit_ in self._manifest.exits}) < len(self.stages)  # exits in one segment
        if first == last or several or not joinable(segments, self.execution_target):
            return []
        end = self.stages[last]
        kept = tuple(tensor.name for tensor in segments[-1].outputs)
        earlier = {tensor.name for segment in segments[:-1] for tensor in segment.outputs}
        kept += tuple(name for name in end.kept if name in earlier)
        graph = self._loaded(segments, kept)
        if graph is None:
            return []
        taken = tuple(dict.fromkeys(t.name for one in segments for t in one.inputs if t.name not in earlier))
        before = self.stages[first - 1].kept if first else tuple(tensor.name for tensor in self._manifest.inputs)
        waiting = [replace(stage, graphs=(), kept=before) for stage in self.stages[first:last]]
        return [*waiting, replace(end, graphs=((graph, taken, kept),))]

    def _without_head(self, exit_index: int) -> Stage:
        """Return a stage without the head at its end; as it is where its last graph ends several stages."""
        stage, ends = self.stages[exit_index], [exit_.segment for exit_ in self._manifest.exits]
        segment = self._manifest.segments[stage.exit.segment]
        kept = tuple(tensor.name for tensor in segment.outputs if tensor.name in stage.kept)
        if ends.count(stage.exit.segment) > 1 or not kept:
            return stage
        graph = self._loaded([segment], kept)
        *before, (_, inputs, _) = stage.graphs
        return stage if graph is None else replace(stage, graphs=(*before, (graph, inputs, kept)))

    def _loaded(self, segments: Sequence[Segment], kept: tuple[str, ...]) -> Graph | None:
        """Return the graph of segments with some outputs, loaded once for all engines over these stages."""
        assert self._headless is not None
        key = (segments[0].file, kept)
        with self._lock:
            if key not in self._graphs:
                self._graphs[key] = self._headless(segments, kept)
            return self._graphs[key]

    def move_ms(self, exit_index: int) -> None:
        """Return None: numpy moves the rows."""


class ArrayForwardPass:
    """A ``ForwardPass`` over arrays. Inputs and returned arrays are never modified: compaction copies them first."""

    def __init__(self, stages_: Sequence[Stage], inputs: Inputs) -> None:
        self._stages, self._tensors, self._lent = stages_, dict(inputs.arrays), set(inputs.arrays)
        self._kept: tuple[str, ...] = tuple(inputs.arrays)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def stage(self, exit_index: int) -> None:
        """Run the graphs of a stage; first drop the tensors that nothing needs any more."""
        stage = self._stages[exit_index]
        self._tensors = {name: self._tensors[name] for name in self._kept}
        stage.run(self._tensors)
        self._kept = stage.kept

    def signals(self, exit_index: int, temperature: float) -> Signals:
        """Return the signals, from the graph if it computes them at this temperature."""
        return self._stages[exit_index].signals(self._tensors, temperature)

    def outputs(self, exit_index: int) -> Float:
        """Return the outputs, which the stage has computed."""
        name = self._stages[exit_index].exit.outputs
        self._lent.add(name)
        outputs: Float = self._tensors[name]
        return outputs

    def compact(self, exit_index: int, moves: Moves) -> None:
        """Move rows within the arrays, which become shorter views."""
        for name in self._stages[exit_index].kept:
            tensor = self._tensors[name]
            self._tensors[name] = moves.within(tensor.copy() if name in self._lent else tensor)
        self._lent.clear()

    def finish(self) -> None:
        """Do nothing: numpy has finished."""

    def copied(self, outputs: Float) -> Float:
        """Return the outputs uncopied: they outlive the pass."""
        return np.asarray(outputs, np.float32)
