"""Predict the time of the next stage: whether compaction pays, and whether a deadline can be kept."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from sdcompress.schema.manifest import Policy

__all__ = ["CostModel"]


class CostModel:
    """Interpolates the stage times that were measured when the artifact was calibrated.

    Args:
        policy: holds the times; without a policy, or without times in it, every time is 0.
        computed: number of allocated rows -> number of computed rows; engines of fixed shapes round up.
    """

    def __init__(self, policy: Policy | None, computed: Callable[[int], int] = int) -> None:
        self._computed = computed
        self._ms = policy.stage_ms if policy else ()
        self._times = policy.stage_times if policy else None

    def ms(self, stage: int, rows: int) -> float:
        """Return the ms of a stage: linear between measured numbers of rows, proportional beyond them; 0 if unknown.

        Args:
            stage: index of its exit.
            rows: at least 1.
        """
        rows = self._computed(rows)
        if self._times is None:
            return self._ms[stage] * rows if self._ms else 0.0
        x, y = self._times.rows, self._times.ms[stage]
        right = bisect_left(x, rows)
        if right == len(x):
            return y[-1] * rows / x[-1]
        if right == 0:
            return y[0]
        return y[right] + (y[right] - y[right - 1]) / (x[right] - x[right - 1]) * (rows - x[right])

    def compaction_pays(self, exit_index: int, allocated: int, active: int) -> bool:
        """Return whether dropping exited rows saves more in the next stage than moving rows costs.

        Only the next stage counts: what does not pay now can be done at the next exit.

        Args:
            exit_index: of the exit that was reached.
            allocated: rows, exited ones included.
            active: rows that have not exited.
        """
        if self._computed(active) == self._computed(allocated):
            return False  # the same number would be computed
        if self._times is None:
            return True
        moved = min(active, allocated - active)
        saved = self.ms(exit_index + 1, allocated) - self.ms(exit_index + 1, active)
        return saved > moved * self._times.move_ms[exit_index]
