"""What an engine drives: the stages of an artifact, wherever their tensors live: arrays, or a device."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sdcompress.artifact.certificate import ExecutionTarget
from sdcompress.modalities import image_of
from sdcompress.policies._base import Float, Signals
from sdcompress.runtime.active_rows import Moves
from sdcompress.runtime.backends._base import Graph
from sdcompress.runtime.inputs import checked
from sdcompress.runtime.stages import Stage, Tensors, stages
from sdcompress.schema.manifest import Manifest

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ArrayChain", "Batch", "Chain", "Run"]


class Batch(Protocol):
    """Checked inputs, float32 [B, C, H, W]: a numpy array, or what a chain takes in its place."""

    def __len__(self) -> int:
        """B."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Some of the rows, as a view."""


class Run(Protocol):
    """One batch on its way: its stages are run in order, from the first on, within the ``with`` block."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give back what other calls wait for."""

    def stage(self, position: int) -> None:
        """Run, or set going, what lies between the exit before and this one; the first axis is all allocated rows."""

    def signals(self, position: int, temperature: float) -> Signals:
        """Of the exit that was reached last, [allocated]; they may be written to, and end with the run."""

    def logits(self, position: int) -> Float:
        """Of the exit that was reached last, [allocated, K]: filled once ``finish`` was called, the same to the end."""

    def compact(self, position: int, moves: Moves) -> None:
        """Move rows of all tensors that are still needed after this exit, and carry only the first ``moves.rows``."""

    def finish(self) -> None:
        """Wait until all that was asked for is there."""

    def own(self, logits: Float) -> Float:
        """These logits as float32 that outlive the run."""


class Chain(Protocol):
    """The stages of an artifact, ready to run. Runs of several threads are safe; they may wait for each other."""

    @property
    def where(self) -> ExecutionTarget:
        """What computes it, and where."""

    @property
    def largest(self) -> int | None:
        """The most rows of one run; None: any."""

    def rows(self, rows: int) -> int:
        """How many rows are computed where so many are allocated."""

    def checked(self, inputs: Any) -> Batch:
        """The inputs as a run takes them.

        Raises:
            InputError: if they are no float32 [B, C, H, W], or lie where this chain cannot read.
        """

    def start(self, inputs: Any) -> Run:
        """A run over at least one checked row."""

    def move_ms(self, position: int) -> float | None:
        """What ``Run.compact`` takes for one row after an exit; None: as much as numpy, which calibration can time."""


class ArrayChain:
    """Tensors as numpy arrays; the graphs are callables on these. A run keeps everything to itself.

    Args:
        manifest: of the artifact.
        graphs: one for each of its segments, ready to run.
        where: what computes them.
    """

    largest: int | None = None

    def __init__(self, manifest: Manifest, graphs: Sequence[Graph], where: ExecutionTarget) -> None:
        self._stages, self._name, self.where = stages(manifest, graphs), manifest.inputs[0].name, where
        self._image = image_of(manifest).shape

    def rows(self, rows: int) -> int:
        """As many."""
        return rows

    def checked(self, inputs: Any) -> Float:
        """C-contiguous, copied only if they were not; see ``Chain.checked``."""
        return checked(inputs, self._image)

    def start(self, inputs: Any) -> ArrayRun:
        """A run over these arrays."""
        return ArrayRun(self._stages, {self._name: inputs}, self._name)

    def move_ms(self, position: int) -> None:
        """Numpy's."""


class ArrayRun:
    """See ``Run``. What was handed in or out is never written to: compaction copies it first."""

    def __init__(self, along: Sequence[Stage], tensors: Tensors, name: str) -> None:
        self._stages, self._tensors, self._lent = along, tensors, {name}
        self._kept: tuple[str, ...] = (name,)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def stage(self, position: int) -> None:
        """Run its graphs; what the stage before it made for nobody else is let go first."""
        stage = self._stages[position]
        self._tensors = {name: self._tensors[name] for name in self._kept}
        stage.run(self._tensors)
        self._kept = stage.kept

    def signals(self, position: int, temperature: float) -> Signals:
        """From the graph, if it computes them at this temperature."""
        return self._stages[position].signals(self._tensors, temperature)

    def logits(self, position: int) -> Float:
        """There already."""
        name = self._stages[position].exit.outputs
        self._lent.add(name)
        return self._tensors[name]

    def compact(self, position: int, moves: Moves) -> None:
        """Within the arrays, which then are shorter views."""
        for name in self._stages[position].kept:
            tensor = self._tensors[name]
            self._tensors[name] = moves.within(tensor.copy() if name in self._lent else tensor)
        self._lent.clear()

    def finish(self) -> None:
        """Nothing to wait for."""

    def own(self, logits: Float) -> Float:
        """They are."""
        return np.asarray(logits, np.float32)
