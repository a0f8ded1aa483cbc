"""The samples of one call that are still on their way, and the answers of those that have left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sdcompress.policies._base import Float, Signals
from sdcompress.runtime.backends._base import Array
from sdcompress.runtime.engine import Prediction
from sdcompress.runtime.stages import Tensors

__all__ = ["Survivors"]

Rows = npt.NDArray[np.int64]


class Survivors:
    """A batch between two exits.

    Rows that leave make holes; rows from the end fill them, in place, so that compaction copies at most as many rows as
    have left, and allocates nothing. Their order changes, which nobody sees: no row depends on the others, and ``rows``
    says whose answer it is. Where compaction does not pay, rows that have left are carried along and computed in vain.

    Args:
        inputs: float32 [B, C, H, W]; the caller's own, so never written to.
        name: the name of the network's input.
    """

    def __init__(self, inputs: Float, name: str) -> None:
        self.tensors: Tensors = {name: inputs}
        self.signals: list[Signals] = []  # of the exits so far, if the policy looks back
        self.alive = self.carried = len(inputs)
        self._batch, self._borrowed = len(inputs), name
        self._answer: Prediction | None = None  # made when the first samples leave without the others
        self._rows: Rows = np.empty(0, np.int64)  # of the caller's batch; unset as long as nobody has left
        self._here: npt.NDArray[np.bool_] | None = None  # which carried rows have not left; None: all

    def leave(self, leaves: npt.NDArray[np.bool_], logits: Float, position: int) -> bool:
        """Take the answers of rows that leave, unless that is everybody: then ``close`` is what remains to be done.

        Returns:
            Whether everybody who is left leaves.

        Args:
            leaves: bool [rows].
            logits: float32 [rows, K].
            position: of the exit.
        """
        if self._here is not None:
            leaves &= self._here
        count = int(np.count_nonzero(leaves))
        if count in {0, self.alive}:
            return count > 0
        if self._answer is None:
            self._rows = np.arange(self._batch)
            self._answer = Prediction(
                np.empty((self._batch, logits.shape[1]), np.float32), np.empty(self._batch, np.int64)
            )
        gone = self._rows[leaves]
        self._answer.logits[gone], self._answer.exit_index[gone] = logits[leaves], position
        self._here = ~leaves if self._here is None else self._here & ~leaves
        self.alive -= count
        return False

    def go_on(self, names: Sequence[str]) -> None:
        """Keep these tensors alone, with the rows as they are.

        Args:
            names: the tensors that are still needed.
        """
        self.tensors = {name: self.tensors[name] for name in names}

    def compact(self) -> None:
        """Drop the rows that have left from all tensors."""
        assert self._here is not None
        count = self.alive
        holes = np.flatnonzero(~self._here[:count])
        movers = count + np.flatnonzero(self._here[count:])

        def filled(array: Array) -> Array:
            array[holes] = array[movers]
            return array[:count]

        if self._borrowed in self.tensors:
            self.tensors[self._borrowed] = self.tensors[self._borrowed].copy()
            self._borrowed = ""
        self.tensors = {name: filled(tensor) for name, tensor in self.tensors.items()}
        self.signals = [Signals(*(filled(column) for column in signals)) for signals in self.signals]
        self._rows = filled(self._rows)
        self.carried, self._here = count, None

    def close(self, logits: Float, position: int) -> Prediction:
        """Everybody who is left leaves here."""
        if self._answer is None:
            return Prediction(logits, np.full(len(logits), position, np.int64))
        rows, kept = (self._rows, logits) if self._here is None else (self._rows[self._here], logits[self._here])
        self._answer.logits[rows], self._answer.exit_index[rows] = kept, position
        return self._answer
