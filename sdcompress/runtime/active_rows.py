"""The samples of one call that are still on their way, and the answers of those that have left: rows, no tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from sdcompress.policies._base import Float, Signals
from sdcompress.runtime.engine import Prediction

__all__ = ["ActiveRows", "Moves"]

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Column = TypeVar("Column", bound=npt.NDArray[Any])


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
        """The same moves as (to, from, rows): neighbours that stay neighbours are one copy."""
        if len(self.holes) == 0:
            return
        broken = np.flatnonzero((np.diff(self.holes) != 1) | (np.diff(self.movers) != 1)) + 1
        starts = [0, *broken.tolist()]
        for start, end in zip(starts, [*starts[1:], len(self.holes)], strict=True):
            yield int(self.holes[start]), int(self.movers[start]), end - start


class _Left(NamedTuple):
    """Rows that left at one exit: of the caller's batch, and which of the allocated ones these were."""

    rows: Rows
    mask: Mask
    logits: Float
    position: int


class ActiveRows:
    """A batch between two exits.

    Rows that leave make holes; rows from the end fill them, in place, so that compaction copies at most as many rows as
    have left, and allocates nothing. Their order changes, which nobody sees: no row depends on the others, and it is
    kept here whose answer each is. Where compaction does not pay, rows that have left stay allocated and are still
    computed. Tensors are moved by whoever holds them, as ``compact`` says.

    Args:
        batch: its samples.
    """

    def __init__(self, batch: int) -> None:
        self.signals: list[Signals] = []  # of the exits so far, if the policy looks back
        self.active = self.allocated = self._batch = batch
        self._left: list[_Left] = []
        self._rows: Rows | None = None  # of the caller's batch; None as long as nobody has left
        self._here: Mask | None = None  # which allocated rows have not left; None: all

    @property
    def whole(self) -> bool:
        """Whether nobody has left yet."""
        return not self._left

    def leave(self, leaves: Mask, logits: Callable[[], Float], position: int) -> bool:
        """Note the answers of rows that leave, unless that is everybody: then ``close`` is what remains to be done.

        Returns:
            Whether everybody who is left leaves.

        Args:
            leaves: bool [allocated].
            logits: gives float32 [allocated, K], which is read when the batch is closed; called only if some leave.
            position: of the exit.
        """
        if self._here is not None:
            leaves &= self._here
        count = int(np.count_nonzero(leaves))
        if count in {0, self.active}:
            return count > 0
        if self._rows is None:
            self._rows = np.arange(self._batch)
        self._left.append(_Left(self._rows[leaves], leaves, logits(), position))
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

    def close(self, logits: Float, position: int) -> Prediction:
        """Everybody who is left leaves here.

        Args:
            logits: float32 [allocated, K]; if nobody has left before, they become the answer themselves.
            position: of the exit.
        """
        if self._rows is None:
            return Prediction(logits, np.full(len(logits), position, np.int64))
        answer = Prediction(np.empty((self._batch, logits.shape[1]), np.float32), np.empty(self._batch, np.int64))
        for left in self._left:
            answer.logits[left.rows], answer.exit_index[left.rows] = left.logits[left.mask], left.position
        rows, kept = (self._rows, logits) if self._here is None else (self._rows[self._here], logits[self._here])
        answer.logits[rows], answer.exit_index[rows] = kept, position
        return answer
