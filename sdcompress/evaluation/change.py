"""Two ways of computing the same exits, compared on samples with targets, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdcompress.errors import UsageError
from sdcompress.policies._base import Float
from sdcompress.schema.change import ExitChange, PolicyChange
from sdcompress.tasks import Array, Prediction, Task, metric_of

__all__ = ["ExitComparison", "PolicyComparison", "Quality", "check_drop"]


@dataclass(frozen=True)
class Quality:
    """One exit in both ways on N samples.

    Attributes:
        change: what is recorded of it.
        further: the task's further scores, after.
        lost: sum of the losses after minus that before.
        samples: N.
        finite: whether all outputs are finite, before and after.
        worst: positions of up to 8 samples with the largest differences, largest first.
    """

    change: ExitChange
    further: dict[str, float]
    lost: float
    samples: int
    finite: bool
    worst: tuple[int, ...]

    def loses_more_than(self, max_drop: float) -> bool:
        """Whether the metric falls by more: a share, 0.01 = one point."""
        return self.lost > max_drop * self.samples + 1e-9


def check_drop(max_drop: float) -> None:
    """Refuse what is no share of the metric that may be lost; UsageError."""
    if not 0 <= max_drop < 1:
        raise UsageError(f"max_drop is {max_drop}.", allowed="0 to below 1", next_step="e.g. 0.01, one point")


class ExitComparison:
    """Every exit in both ways; no outputs are held for more than one batch.

    Args:
        task: what the outputs mean.
        exits: E names.
    """

    def __init__(self, task: Task, exits: Sequence[str]) -> None:
        self._task = task
        self._exits = tuple(exits)
        self._batches: list[list[_Compared]] = []

    def add(self, before: Float, after: Float, targets: Array) -> None:
        """Take in a batch: outputs [E, B, ...] of the same samples in both ways, and their targets [B, ...]."""
        pairs = zip(before, after, strict=True)
        self._batches.append([_Compared.of(self._task, old, new, targets) for old, new in pairs])

    def qualities(self) -> tuple[Quality, ...]:
        """The quality of each exit, once a batch was taken in."""
        rows = map(_Compared.joined, zip(*self._batches, strict=True))
        return tuple(_quality(self._task, name, row) for name, row in zip(self._exits, rows, strict=True))


class PolicyComparison:
    """What users get: the exit at which each sample leaves, and the decision.

    Args:
        task: what the outputs mean.
        exits: how many there are.
    """

    def __init__(self, task: Task, exits: int) -> None:
        self._task = task
        self._exits = exits
        self._batches: list[npt.NDArray[np.float64]] = []

    def add(self, before: Prediction, after: Prediction, targets: Array) -> None:
        """Take in a batch of the same samples in both ways, and their targets [B, ...]."""
        old, new, task = before.decision, after.decision, self._task
        losses = (task.loss(old, targets), task.loss(new, targets), task.flips(new, old))
        self._batches.append(np.stack([before.exit_index, after.exit_index, *losses]))

    def change(self) -> PolicyChange:
        """The change, once a batch was taken in."""
        exits_before, exits_after, loss_before, loss_after, changed = np.concatenate(self._batches, axis=1)
        return PolicyChange(
            metric_before=metric_of(loss_before),
            metric_after=metric_of(loss_after),
            exit_changes=int((exits_before != exits_after).sum()),
            decision_changes=int(changed.sum()),
            shares_before=self._shares(exits_before),
            shares_after=self._shares(exits_after),
        )

    def _shares(self, exit_index: npt.NDArray[np.float64]) -> tuple[float, ...]:
        return tuple(float((exit_index == position).mean()) for position in range(self._exits))


@dataclass(frozen=True)
class _Compared:
    """One exit on N samples.

    Attributes:
        losses: float64 [4, N]: loss before and after, whether the decision changed, largest difference of an output.
        measures: [N] each, after, of which the task sums up its further scores.
    """

    losses: npt.NDArray[np.float64]
    measures: dict[str, Array]

    @classmethod
    def of(cls, task: Task, before: Float, after: Float, targets: Array) -> _Compared:
        old, new = task.decide(before), task.decide(after)
        with np.errstate(invalid="ignore"):  # infinity less infinity, which is recorded as not finite
            difference = np.abs(after - before).reshape(len(after), -1).max(axis=1)
        losses = (task.loss(old, targets), task.loss(new, targets), task.flips(new, old), difference)
        return cls(np.stack(losses).astype(np.float64), task.measures(np.nan_to_num(after), targets))

    @classmethod
    def joined(cls, parts: Sequence[_Compared]) -> _Compared:
        names = parts[0].measures
        measures = {name: np.concatenate([part.measures[name] for part in parts]) for name in names}
        return cls(np.concatenate([part.losses for part in parts], axis=1), measures)


def _quality(task: Task, name: str, row: _Compared) -> Quality:
    before, after, changed, difference = row.losses
    known = np.nan_to_num(difference, nan=np.inf)
    change = ExitChange(
        name=name,
        metric_before=metric_of(before),
        metric_after=metric_of(after),
        decision_changes=int(changed.sum()),
        max_abs_diff=float(min(known.max(), np.finfo(np.float32).max)),
    )
    return Quality(
        change,
        task.summary(row.measures),
        float(after.sum() - before.sum()),
        len(before),
        bool(np.isfinite(difference).all()),
        tuple(int(index) for index in np.argsort(-known, kind="stable")[:8]),
    )
