"""Compare the exits of a network before and after a change, on samples with targets, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sdcompress.errors import UsageError
from sdcompress.evaluation.exit_outcomes import Measured
from sdcompress.policies._base import Float
from sdcompress.schema.change import ExitChange, PolicyChange
from sdcompress.tasks import Array, Prediction, Task, metric_of

__all__ = ["ExitComparison", "ExitQuality", "PolicyComparison", "check_drop"]

_Rows = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ExitQuality:
    """One exit on N samples, before and after the change.

    Attributes:
        change: the record of it.
        further: further metrics of the task, after the change.
        added_loss: sum of the losses after less that before.
        samples: N.
        finite: whether all outputs are finite, before and after.
        largest_differences: rows of up to 8 samples with the largest differences, largest first.
    """

    change: ExitChange
    further: dict[str, float]
    added_loss: float
    samples: int
    finite: bool
    largest_differences: tuple[int, ...]

    def loses_more_than(self, max_drop: float) -> bool:
        """Whether the metric falls by more than ``max_drop``; 0.01 is one point."""
        return self.added_loss > max_drop * self.samples + 1e-9


def check_drop(max_drop: float) -> None:
    """Refuse a drop of the metric outside [0, 1).

    Raises:
        UsageError: if it is.
    """
    if not 0 <= max_drop < 1:
        raise UsageError(f"max_drop is {max_drop}.", allowed="0 to below 1", next_step="e.g. 0.01, one point")


class ExitComparison:
    """Compare every exit before and after a change; outputs of one batch at a time are in memory.

    Args:
        task: of the outputs.
        exits: E names.
    """

    def __init__(self, task: Task, exits: Sequence[str]) -> None:
        self._task = task
        self._exits = tuple(exits)
        self._batches: list[list[_Compared]] = []

    def add(self, before: Float, after: Float, targets: Array) -> None:
        """Add a batch: outputs [E, B, ...] of the same samples before and after, and their targets [B, ...]."""
        pairs = zip(before, after, strict=True)
        self._batches.append([_Compared.of(self._task, old, new, targets) for old, new in pairs])

    def qualities(self) -> tuple[ExitQuality, ...]:
        """Return the quality of each exit; at least one batch must have been added."""
        rows = map(_Compared.joined, zip(*self._batches, strict=True))
        return tuple(_quality(self._task, name, row) for name, row in zip(self._exits, rows, strict=True))


class PolicyComparison:
    """Compare exits and decisions of a policy before and after a change.

    Args:
        task: of the outputs.
        exits: number of exits.
    """

    def __init__(self, task: Task, exits: int) -> None:
        self._task = task
        self._exits = exits
        self._batches: list[npt.NDArray[np.float64]] = []

    def add(self, before: Prediction, after: Prediction, targets: Array) -> None:
        """Add a batch: predictions of the same samples before and after, and their targets [B, ...]."""
        old, new, task = before.decision, after.decision, self._task
        losses = (task.loss(old, targets), task.loss(new, targets))
        changes = (task.flips(new, old), task.changes(new, old))
        self._batches.append(np.stack([before.exit_index, after.exit_index, *losses, *changes]))

    def change(self) -> PolicyChange:
        """Return the change; at least one batch must have been added."""
        exits_before, exits_after, loss_before, loss_after, *changes = np.concatenate(self._batches, axis=1)
        return PolicyChange(
            metric_before=metric_of(loss_before),
            metric_after=metric_of(loss_after),
            exit_changes=int((exits_before != exits_after).sum()),
            **_change_fields(self._task, *changes),
            shares_before=self._shares(exits_before),
            shares_after=self._shares(exits_after),
        )

    def _shares(self, exit_index: npt.NDArray[np.float64]) -> tuple[float, ...]:
        return tuple(float((exit_index == k).mean()) for k in range(self._exits))


@dataclass(frozen=True)
class _Compared:
    """One exit on N samples, before and after.

    Attributes:
        after: losses and measures after the change.
        differences: float64 [4, N]: loss before, whether the decision changed, what share of it, and the largest
            difference of an output.
    """

    after: Measured
    differences: npt.NDArray[np.float64]

    @classmethod
    def of(cls, task: Task, before: Float, after: Float, targets: Array) -> _Compared:
        old, new = task.decide(before), task.decide(after)
        with np.errstate(invalid="ignore"):  # infinity - infinity is recorded as not finite
            difference = np.abs(after - before).reshape(len(after), -1).max(axis=1)
        measured = Measured(task.loss(new, targets), task.measures(np.nan_to_num(after), targets))
        rows = (task.loss(old, targets), task.flips(new, old), task.changes(new, old), difference)
        return cls(measured, np.stack(rows).astype(np.float64))

    @classmethod
    def joined(cls, parts: Sequence[_Compared]) -> _Compared:
        differences = np.concatenate([part.differences for part in parts], axis=1)
        return cls(Measured.joined([part.after for part in parts]), differences)


def _change_fields(task: Task, changed: _Rows, shares: _Rows) -> dict[str, Any]:
    """The fields of ``DecisionChange`` that say how many decisions changed, and how much of them."""
    share = float(np.clip(shares.mean(), 0, 1))
    return {"decision_changes": int(changed.sum()), "changed_share": share, "change_unit": task.change_unit}


def _quality(task: Task, name: str, row: _Compared) -> ExitQuality:
    before, *changes, difference = row.differences
    after = row.after.loss.astype(np.float64)
    known = np.nan_to_num(difference, nan=np.inf)
    change = ExitChange(
        name=name,
        metric_before=metric_of(before),
        metric_after=metric_of(after),
        **_change_fields(task, *changes),
        max_abs_diff=float(min(known.max(), np.finfo(np.float32).max)),
    )
    return ExitQuality(
        change,
        task.summary(row.after.measures),
        float(after.sum() - before.sum()),
        len(before),
        bool(np.isfinite(difference).all()),
        tuple(int(index) for index in np.argsort(-known, kind="stable")[:8]),
    )
