"""Two ways of computing the same exits, held against each other on labelled images, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdcompress.errors import UsageError
from sdcompress.policies._base import Float
from sdcompress.runtime.engine import Prediction
from sdcompress.schema.change import ExitChange, PolicyChange
from sdcompress.tasks._probabilities import calibration_error, softmax

__all__ = ["ExitComparison", "PolicyComparison", "Quality", "check_drop"]

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Quality:
    """One exit in both ways on N images.

    Attributes:
        change: what is told of it.
        ece: after.
        lost: answers that are right before minus those that are right after.
        images: N.
        finite: whether all logits are finite, before and after.
        worst: positions of up to 8 images with the largest differences, largest first.
    """

    change: ExitChange
    ece: float
    lost: int
    images: int
    finite: bool
    worst: tuple[int, ...]

    def loses_more_than(self, max_drop: float) -> bool:
        """Whether the accuracy falls by more: a share, 0.01 = one point."""
        return self.lost > max_drop * self.images + 1e-9


def check_drop(max_drop: float) -> None:
    """Refuse what is no share of accuracy that may be lost; UsageError."""
    if not 0 <= max_drop < 1:
        raise UsageError(
            f"max_drop is {max_drop}.", allowed="0 to below 1", next_step="e.g. 0.01, one point of accuracy"
        )


class ExitComparison:
    """Every exit's answers; no logits are held for more than one batch.

    Args:
        exits: E names.
    """

    def __init__(self, exits: Sequence[str]) -> None:
        self._exits = tuple(exits)
        self._batches: list[_Exits] = []

    def add(self, before: Float, after: Float, labels: Labels) -> None:
        """Take in a batch: logits [E, B, K] of the same images in both ways, and their labels [B]."""
        answers = [logits.argmax(axis=2) for logits in (before, after)]
        with np.errstate(invalid="ignore"):  # infinity less infinity, which is told as not finite
            difference = np.abs(after - before).max(axis=2)
        confidence = softmax(np.nan_to_num(after)).max(axis=2)
        batch = _Exits(answers[0] == labels, answers[1] == labels, answers[0] != answers[1], difference, confidence)
        self._batches.append(batch)

    def found(self) -> tuple[Quality, ...]:
        """What there is to say of each exit, once a batch was taken in."""
        values = zip(*(vars(batch).values() for batch in self._batches), strict=True)
        joined = _Exits(*(np.concatenate(parts, axis=1) for parts in values))
        return tuple(_quality(name, joined, row) for row, name in enumerate(self._exits))


class PolicyComparison:
    """What users get: at which exit each image leaves, and what it is answered.

    Args:
        exits: how many there are.
    """

    def __init__(self, exits: int) -> None:
        self._exits = exits
        self._batches: list[_Leaving] = []

    def add(self, before: Prediction, after: Prediction, labels: Labels) -> None:
        """Take in a batch of the same images in both ways, and their labels [B]."""
        answers = [prediction.outputs.argmax(axis=1) for prediction in (before, after)]
        self._batches.append(
            _Leaving(
                before.exit_index, after.exit_index,
                answers[0] == labels, answers[1] == labels, answers[0] != answers[1],
            )
        )  # fmt: skip

    def found(self) -> PolicyChange:
        """What there is to say, once a batch was taken in."""
        values = zip(*(vars(batch).values() for batch in self._batches), strict=True)
        joined = _Leaving(*(np.concatenate(parts) for parts in values))
        return PolicyChange(
            accuracy_before=float(joined.right_before.mean()),
            accuracy_after=float(joined.right_after.mean()),
            moved=int((joined.left_before != joined.left_after).sum()),
            changed=int(joined.changed.sum()),
            shares_before=self._shares(joined.left_before),
            shares_after=self._shares(joined.left_after),
        )

    def _shares(self, left: npt.NDArray[np.int64]) -> tuple[float, ...]:
        return tuple(float((left == position).mean()) for position in range(self._exits))


@dataclass(frozen=True)
class _Exits:
    """Of E exits and N images, each [E, N]."""

    right_before: npt.NDArray[np.bool_]
    right_after: npt.NDArray[np.bool_]
    changed: npt.NDArray[np.bool_]
    difference: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Leaving:
    """Of N images, each [N]."""

    left_before: npt.NDArray[np.int64]
    left_after: npt.NDArray[np.int64]
    right_before: npt.NDArray[np.bool_]
    right_after: npt.NDArray[np.bool_]
    changed: npt.NDArray[np.bool_]


def _quality(name: str, found: _Exits, row: int) -> Quality:
    before, after = found.right_before[row], found.right_after[row]
    difference = found.difference[row]
    known = np.nan_to_num(difference, nan=np.inf)
    change = ExitChange(
        name=name,
        accuracy_before=float(before.mean()),
        accuracy_after=float(after.mean()),
        changed=int(found.changed[row].sum()),
        max_abs=float(min(known.max(), np.finfo(np.float32).max)),
    )
    return Quality(
        change,
        calibration_error(found.confidence[row], after),
        int(before.sum()) - int(after.sum()),
        len(before),
        bool(np.isfinite(difference).all()),
        tuple(int(index) for index in np.argsort(-known, kind="stable")[:8]),
    )
