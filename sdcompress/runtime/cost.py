"""What is still to come, in milliseconds: does compaction pay, does the next stage fit before a deadline."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from sdcompress.schema.manifest import Policy

__all__ = ["Cost"]


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

    def ms(self, stage: int, rows: int) -> float:
        """Return the time of a stage with so many rows: straight between the measured ones, in proportion beyond them.

        0 if nothing is known.

        Args:
            stage: its position.
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

    def compaction_pays(self, position: int, allocated: int, active: int) -> bool:
        """Return whether dropping the rows that have left saves more in the next stage than moving rows costs.

        Only the next stage counts: what does not pay now can be done at the next exit.

        Args:
            position: of the exit.
            allocated: rows, those that have left included.
            active: rows that have not.
        """
        if self._computed(active) == self._computed(allocated):
            return False  # as much would be computed
        if self._times is None:
            return True
        moved = min(active, allocated - active)
        saved = self.ms(position + 1, allocated) - self.ms(position + 1, active)
        return saved > moved * self._times.move_ms[position]
