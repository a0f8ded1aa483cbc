"""Keep track of the rows of one call: which have not exited yet, and the outputs of those that have. No tensors."""

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
    """The outputs of a batch, each row from the exit that it took.

    Attributes:
        outputs: float32 [B, ...].
        exit_index: int64 [B].
    """

    outputs: Float
    exit_index: Rows

    @classmethod
    def all_at(cls, outputs: Float, exit_index: int) -> RoutedOutputs:
        """Return all rows at one exit."""
        return cls(outputs, np.full(len(outputs), exit_index, np.int64))


class Moves(NamedTuple):
    """Rows from the end of a batch that fill the holes before them.

    Attributes:
        holes: int64 [M], rising: where to.
        movers: int64 [M], rising: from where, all behind ``rows``.
        rows: number of active rows.
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


class _Exited(NamedTuple):
    """Rows that took one exit: their places in the caller's batch, and the allocated rows that they were."""

    rows: Rows
    mask: Mask
    outputs: Float
    exit_index: int


class ActiveRows:
    """A batch between two exits.

    Rows that exit make holes; rows from the end fill them, in place. So compaction copies at most as many rows as have
    exited, and allocates nothing. The order of the rows changes, which no caller sees: no row depends on the others,
    and their places in the caller's batch are kept here. Where compaction does not pay, rows that have exited stay
    allocated and are still computed. ``compact`` says how the tensors must be moved.

    Args:
        batch: number of its samples.
    """

    def __init__(self, batch: int) -> None:
        self.signals: list[Signals] = []  # of the exits so far, if the policy looks back
        self.active = self.allocated = self._batch = batch
        self._exited: list[_Exited] = []
        self._rows: Rows | None = None  # of the caller's batch; None as long as no row has exited
        self._active_mask: Mask | None = None  # of the allocated rows; None: all are active

    @property
    def none_exited(self) -> bool:
        """Return whether no row has exited yet."""
        return not self._exited

    def exit_early(self, exiting: Mask, outputs: Callable[[], Float], exit_index: int) -> bool:
        """Record the outputs of rows that exit here, unless no row stays: then nothing is recorded, call ``gather``.

        Returns:
            Whether all active rows exit.

        Args:
            exiting: bool [allocated]; rows that exited before do not count.
            outputs: returns float32 [allocated, ...], read by ``gather``; called only if some rows exit and some stay.
            exit_index: of this exit.
        """
        if self._active_mask is not None:
            exiting &= self._active_mask
        count = int(np.count_nonzero(exiting))
        if count in {0, self.active}:
            return count > 0
        if self._rows is None:
            self._rows = np.arange(self._batch)
        self._exited.append(_Exited(self._rows[exiting], exiting, outputs(), exit_index))
        self._active_mask = ~exiting if self._active_mask is None else self._active_mask & ~exiting
        self.active -= count
        return False

    def compact(self) -> Moves:
        """Drop the rows that have exited, and return the moves of the rows of the tensors."""
        assert self._active_mask is not None
        assert self._rows is not None
        count = self.active
        holes, movers = np.flatnonzero(~self._active_mask[:count]), count + np.flatnonzero(self._active_mask[count:])
        moves = Moves(holes, movers, count)
        self.signals = [signals.map(moves.within) for signals in self.signals]
        self._rows = moves.within(self._rows)
        self.allocated, self._active_mask = count, None
        return moves

    def gather(self, outputs: Float, exit_index: int) -> RoutedOutputs:
        """Let all active rows exit here, and return all rows in the caller's order.

        Args:
            outputs: float32 [allocated, ...]; returned as they are if no row has exited before.
            exit_index: of this exit.
        """
        if self._rows is None:
            return RoutedOutputs.all_at(outputs, exit_index)
        routed = RoutedOutputs(np.empty((self._batch, *outputs.shape[1:]), np.float32), np.empty(self._batch, np.int64))
        for one in self._exited:
            routed.outputs[one.rows], routed.exit_index[one.rows] = one.outputs[one.mask], one.exit_index
        mask = slice(None) if self._active_mask is None else self._active_mask
        rows = self._rows[mask]
        routed.outputs[rows], routed.exit_index[rows] = outputs[mask], exit_index
        return routed
