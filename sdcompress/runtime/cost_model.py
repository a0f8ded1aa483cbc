"""Predict times: whether compaction pays, whether a deadline can be kept, which rows of a batch run together."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from math import inf, prod

import numpy as np
import numpy.typing as npt

from sdcompress.modalities import Inputs
from sdcompress.schema.manifest import Policy, StageTimes, Tensor

__all__ = ["CostModel", "sample_size"]


def sample_size(tensors: Sequence[Tensor], inputs: Inputs) -> int:
    """Return the product of the axes of inputs that vary beside the batch, such as the tokens; 1 where none does.

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


class CostModel:
    """Interpolates the stage times that were measured when the artifact was calibrated.

    Args:
        policy: holds the times; without a policy, or without times in it, every time is 0.
        computed: number of allocated rows -> number of computed rows; engines of fixed shapes round up.
        times: measured elsewhere, in the place of the policy's.
        unused: exits that no row takes: rows that pass one pass the stage behind it too.
    """

    def __init__(
        self,
        policy: Policy | None,
        computed: Callable[[int], int] = int,
        times: StageTimes | None = None,
        unused: Collection[int] = (),
    ) -> None:
        self._computed, self._unused = computed, frozenset(unused)
        self._ms = policy.stage_ms if policy else ()
        self._times = times or (policy.stage_times if policy else None)
        rows, sizes = (self._times.rows, self._times.sizes) if self._times else ((), ())
        self._usual_size = sizes[-1] if sizes else None  # at which moving a row was measured
        self._work = [count * size for count, size in zip(rows, sizes or (1.0,) * len(rows), strict=True)]
        self._call_size = inf
        if self._times and sizes:
            one, most = (sum(stage[at] for stage in self._times.ms) for at in (0, -1))
            self._call_size = one / most * self._work[-1]

    def ms(self, stage: int, rows: int, size: int = 1) -> float:
        """Return the ms of a stage: linear between measured numbers of rows, proportional beyond them; 0 if unknown.

        What counts is rows times their size: two rows take as long as one of twice the tokens.

        Args:
            stage: index of its exit.
            rows: at least 1.
            size: of a row, see ``sample_size``; it counts where the calibration measured sizes.
        """
        rows = self._computed(rows)
        if self._times is None:
            return self._ms[stage] * rows if self._ms else 0.0
        x, y, work = self._work, self._times.ms[stage], rows * (size if self._usual_size else 1)
        right = bisect_left(x, work)
        if right == len(x):
            return y[-1] * work / x[-1]
        if right == 0:
            return y[0]
        return y[right] + (y[right] - y[right - 1]) / (x[right] - x[right - 1]) * (work - x[right])

    def compaction_pays(self, exit_index: int, allocated: int, active: int, size: int = 1) -> bool:
        """Return whether dropping exited rows saves more until the next exit that rows take than moving rows costs.

        Only the stages up to there count: what does not pay now can be done at that exit.

        Args:
            exit_index: of the exit that was reached.
            allocated: rows, exited ones included.
            active: rows that have not exited.
            size: of a row, see ``sample_size``.
        """
        if self._computed(active) == self._computed(allocated):
            return False  # the same number would be computed
        if self._times is None:
            return True
        moved = min(active, allocated - active)
        saved, stage = 0.0, exit_index
        while stage == exit_index or stage in self._unused:
            stage += 1
            saved += self.ms(stage, allocated, size) - self.ms(stage, active, size)
        longer = size / self._usual_size if self._usual_size else 1.0
        return saved > moved * longer * self._times.move_ms[exit_index]

    def parts(self, lengths: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
        """Return the rows of a batch in parts of like lengths, where padding costs more than further calls.

        A further call is assumed to cost as much as a single row, which is rather too much. The rows are split where
        that saves the most padding, and then each side in the same way.

        Args:
            lengths: of each row, int64 [B].
        """
        parts, pending = [], [np.argsort(lengths, kind="stable")]
        while pending:
            rows = pending.pop()
            ordered = lengths[rows]
            saved = np.arange(1, len(rows)) * (ordered[-1:] - ordered[:-1])
            if saved.max(initial=0) <= self._call_size:
                parts.append(rows)
            else:
                pending += np.split(rows, [int(saved.argmax()) + 1])
        return parts
