"""What an exit policy may judge the samples of an exit by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["AGREEMENT", "Array", "Float", "Signals"]

AGREEMENT = "agreement of exits"
"""What a policy needs that asks ``Signals.agrees`` or ``Signals.change``, beside names of columns."""

Array = npt.NDArray[Any]
Float = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Signals:
    """What an exit policy may judge B samples of one exit by; ``signals["entropy"]`` is a column.

    Attributes:
        columns: name -> float32 [B], one for each of ``Task.signal_names``.
        decision: what the exit decides for each sample, [B, ...]; see ``Task.decide``.
        resolution: see ``Task.resolution``.
    """

    columns: Mapping[str, Float]
    decision: Array
    resolution: Float | None = None

    def __getitem__(self, name: str) -> Float:
        return self.columns[name]

    def __len__(self) -> int:
        return len(self.decision)

    def zeros(self) -> Float:
        """0 for each sample, [B], and NaN where its first column is not finite: what a policy adds so as to carry NaN.

        The task needs one signal at least.
        """
        zeros: Float = np.multiply(next(iter(self.columns.values())), np.float32(0))
        return zeros

    def agrees(self, other: Signals) -> npt.NDArray[np.bool_]:
        """Whether another exit decides the same for each of the samples, bool [B].

        Every element of both is equal, or no further apart than the resolution.
        """
        if self.resolution is not None:
            near: npt.NDArray[np.bool_] = np.less_equal(self.change(other), np.float32(1))
            return near
        same: npt.NDArray[np.bool_] = np.equal(self.decision, other.decision)
        return same if same.ndim == 1 else np.logical_and.reduce(same, axis=tuple(range(1, same.ndim)))

    def change(self, other: Signals) -> Float:
        """How far another exit's decision is away for each of the samples, float32 [B].

        The largest difference of an element in units of the resolution; without one 0 for equal decisions, else 1.
        """
        if self.resolution is None:
            differing: Float = np.subtract(np.float32(1), self.agrees(other))
            return differing
        difference = np.absolute(np.subtract(self.decision, other.decision))
        steps = np.divide(difference, self.resolution)
        change: Float = np.maximum.reduce(steps, axis=tuple(range(1, steps.ndim)))
        return change

    def stacked(self) -> Float:
        """The columns side by side, [B, S], as graphs give them."""
        return np.stack(list(self.columns.values()), axis=1)

    def map(self, change: Any) -> Signals:
        """The same with ``change`` applied to every array, for example to take some rows."""
        columns = {name: change(column) for name, column in self.columns.items()}
        return Signals(columns, change(self.decision), self.resolution)

    @classmethod
    def condensed(cls, exits: Sequence[Signals]) -> tuple[Signals, ...]:
        """The signals of all exits without decisions of several axes, such as masks, which are large.

        In their place stands the position of the first exit that decides the same, int64 [B]: ``agrees`` is unchanged.
        Numbers stay, because their change counts.
        """
        if exits[0].decision.ndim == 1 or exits[0].resolution is not None:
            return tuple(exits)
        condensed = []
        for position, exit_ in enumerate(exits):
            first = np.full(len(exit_), position, np.int64)
            for earlier in reversed(range(position)):
                first[exits[earlier].agrees(exit_)] = earlier
            condensed.append(cls(exit_.columns, first))
        return tuple(condensed)

    @classmethod
    def joined(cls, parts: Sequence[Signals]) -> Signals:
        """The rows of several batches, one after the other."""
        columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
        return cls(columns, np.concatenate([part.decision for part in parts]), parts[0].resolution)
