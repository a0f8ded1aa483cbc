"""The rows of one call that have not left yet, and the outputs of those that have: positions, no tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from sdcompress.policies._base import Float, Signals

__all__ = ["ActiveRows", "Moves", "RoutedOutputs"]

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Column = TypeVar("Column", bound=npt.NDArray[Any])


class RoutedOutputs(NamedTuple):
    """What the rows of a batch got.

    Attributes:
        outputs: float32 [B, ...], of the exit at which each row left.
        exit_index: int64 [B], the position of that exit.
    """

    outputs: Float
    exit_index: Rows

    @classmethod
    def all_at(cls, outputs: Float, position: int) -> RoutedOutputs:
        """Return all rows at one exit."""
        return cls(outputs, np.full(len(outputs), position, np.int64))


class Moves(NamedTuple):
    """Rows from the end of a batch that fill the holes before them.

    Attributes:
        holes: int64 [M], rising: where to.
        movers: int64 [M], rising: from where, all behind ``rows``.
        rows: how many are left.
    """

    holes: Rows
    movers: Rows
    rows: int

    def within(self, array: Column) -> Column:
        """Move rows of an array, in place, and return the first ``rows`` of it."""
        array[self.holes] = array[self.movers]
        return array[: self.rows]  # type: ignore[return-value] # numpy: a view of the same kind

    def blocks(self) -> Iterator[tuple[int, int, int]]:
        """Yield the same moves as (to, from, rows): neighbours that stay neighbours are one copy."""
        if len(self.holes) == 0:
            return
        broken = np.flatnonzero((np.diff(self.holes) != 1) | (np.diff(self.movers) != 1)) + 1
        starts = [0, *broken.tolist()]
        for start, end in zip(starts, [*starts[1:], len(self.holes)], strict=True):
            yield int(self.holes[start]), int(self.movers[start]), end - start


class _Left(NamedTuple):
    """Rows that left at one exit: their places in the caller's batch, and which allocated rows they were."""

    rows: Rows
    mask: Mask
    outputs: Float
    position: int


class ActiveRows:
    """A batch between two exits.

    Rows that leave make holes; rows from the end fill them, in place, so that compaction copies at most as many rows as
    have left, and allocates nothing. Their order changes, which no caller sees: no row depends on the others, and their
    places in the caller's batch are kept here. Where compaction does not pay, rows that have left stay allocated and
    are still computed. ``compact`` says how the tensors must be moved.

    Args:
        batch: its samples.
    """

    def __init__(self, batch: int) -> None:
        self.signals: list[Signals] = []  # of the exits so far, if the policy looks back
        self.active = self.allocated = self._batch = batch
        self._left: list[_Left] = []
        self._rows: Rows | None = None  # of the caller's batch; None as long as no row has left
        self._here: Mask | None = None  # which allocated rows have not left; None: all

    @property
    def whole(self) -> bool:
        """Return whether no row has exited yet."""
        return not self._left

    def leave(self, leaves: Mask, outputs: Callable[[], Float], position: int) -> bool:
        """Note the outputs of rows that leave, unless those are all that are left: then call ``close``.

        Returns:
            Whether all active rows leave.

        Args:
            leaves: bool [allocated].
            outputs: gives float32 [allocated, ...], which is read when the batch is closed; called only if some leave.
            position: of the exit.
        """
        if self._here is not None:
            leaves &= self._here
        count = int(np.count_nonzero(leaves))
        if count in {0, self.active}:
            return count > 0
        if self._rows is None:
            self._rows = np.arange(self._batch)
        self._left.append(_Left(self._rows[leaves], leaves, outputs(), position))
        self._here = ~leaves if self._here is None else self._here & ~leaves
        self.active -= count
        return False

    def compact(self) -> Moves:
        """Drop the rows that have left, and say which rows of the tensors must move where."""
        assert self._here is not None
        assert self._rows is not None
        count = self.active
        holes, movers = np.flatnonzero(~self._here[:count]), count + np.flatnonzero(self._here[count:])
        moves = Moves(holes, movers, count)
        self.signals = [signals.map(moves.within) for signals in self.signals]
        self._rows = moves.within(self._rows)
        self.allocated, self._here = count, None
        return moves

    def close(self, outputs: Float, position: int) -> RoutedOutputs:
        """Let all active rows exit here.

        Args:
            outputs: float32 [allocated, ...]; returned as they are if no row has left before.
            position: of the exit.
        """
        if self._rows is None:
            return RoutedOutputs.all_at(outputs, position)
        routed = RoutedOutputs(np.empty((self._batch, *outputs.shape[1:]), np.float32), np.empty(self._batch, np.int64))
        for left in self._left:
            routed.outputs[left.rows], routed.exit_index[left.rows] = left.outputs[left.mask], left.position
        rows, kept = (self._rows, outputs) if self._here is None else (self._rows[self._here], outputs[self._here])
        routed.outputs[rows], routed.exit_index[rows] = kept, position
        return routed
