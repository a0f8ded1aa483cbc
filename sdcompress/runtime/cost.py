"""What is still to come, in milliseconds: does compaction pay, does the next stage fit before a deadline."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from math import prod

from sdcompress.modalities import Inputs
from sdcompress.schema.manifest import Policy, Tensor

__all__ = ["Cost", "sample_size"]


def sample_size(tensors: Sequence[Tensor], inputs: Inputs) -> int:
    """Return the product of all axes of inputs that vary beside the batch, such as the tokens; 1 where none does.

    Args:
        tensors: the inputs in the manifest.
        inputs: of one batch.
    """
    sizes = {
        axis: size
        for tensor in tensors
        for axis, size in zip(tensor.shape[1:], inputs.arrays[tensor.name].shape[1:], strict=True)
        if isinstance(axis, str)
    }
    return prod(sizes.values())


class Cost:
    """The stage times that were measured when the artifact was calibrated.

    Args:
        policy: holds them; None, or a policy without: nothing is known.
        computed: from the rows that are allocated to those that are computed; engines of fixed shapes round up.
    """

    def __init__(self, policy: Policy | None, computed: Callable[[int], int] = int) -> None:
        self._computed = computed
        self._ms = policy.stage_ms if policy else ()
        self._times = policy.stage_times if policy else None
        rows, sizes = (self._times.rows, self._times.sizes) if self._times else ((), ())
        self._usual = sizes[-1] if sizes else None  # at which moving a row was measured
        self._work = [rows_ * size for rows_, size in zip(rows, sizes or (1.0,) * len(rows), strict=True)]

    def ms(self, stage: int, rows: int, size: int = 1) -> float:
        """Return the time of a stage with so many rows: straight between the measured ones, in proportion beyond them.

        What counts is rows times their size: two rows take as long as one of twice the tokens. 0 if nothing is known.

        Args:
            stage: its position.
            rows: at least 1.
            size: of a row, see ``sample_size``; it counts where the calibration has measured sizes.
        """
        rows = self._computed(rows)
        if self._times is None:
            return self._ms[stage] * rows if self._ms else 0.0
        x, y, work = self._work, self._times.ms[stage], rows * (size if self._usual else 1)
        right = bisect_left(x, work)
        if right == len(x):
            return y[-1] * work / x[-1]
        if right == 0:
            return y[0]
        return y[right] + (y[right] - y[right - 1]) / (x[right] - x[right - 1]) * (work - x[right])

    def compaction_pays(self, position: int, allocated: int, active: int, size: int = 1) -> bool:
        """Return whether dropping the rows that have left saves more in the next stage than moving rows costs.

        Only the next stage counts: what does not pay now can be done at the next exit.

        Args:
            position: of the exit.
            allocated: rows, those that have left included.
            active: rows that have not.
            size: of a row, see ``sample_size``.
        """
        if self._computed(active) == self._computed(allocated):
            return False  # as much would be computed
        if self._times is None:
            return True
        moved = min(active, allocated - active)
        saved = self.ms(position + 1, allocated, size) - self.ms(position + 1, active, size)
        longer = size / self._usual if self._usual else 1.0
        return saved > moved * longer * self._times.move_ms[position]
