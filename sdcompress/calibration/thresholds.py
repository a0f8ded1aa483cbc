"""Thresholds of the exits: the cheapest that lose no more than allowed, on the samples given.

Every candidate is counted, none is estimated: along one threshold all samples are sorted by score once, and two
cumulative sums give the loss and the time saved for every value that the threshold can take.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from sdcompress.policies import leave

__all__ = ["NEVER", "Search", "at_price", "choose_thresholds", "settle"]

NEVER = 2.0  # no score is above 1

Scores = npt.NDArray[np.float32]
Exits = npt.NDArray[np.int64]
Losses = npt.NDArray[np.float64]
Thresholds = npt.NDArray[np.float32]

_SWEEPS = 20
_PRICES = 16
_GRID = 2.0**30  # losses are multiples of 1 / _GRID: float64 then sums a million of them exactly, in any order


def choose_thresholds(
    scores: Scores,
    loss: npt.NDArray[np.floating],
    stage_ms: npt.ArrayLike,
    max_drop: float,
    *,
    shared: bool = False,
) -> tuple[float, ...]:
    """Thresholds of small mean cost with a mean loss <= that of the last exit + max_drop, on these samples.

    Coordinate descent from several starts: one threshold for all exits, one exit alone, and the minima of
    cost + price * loss for a range of prices, which spread the allowed loss over the exits. The result is never
    worse than any start, and not proved to be the best. The same numbers give the same thresholds.

    Args:
        scores: float32 [E-1, N], of all exits but the last, N > 0, each in [0, 1].
        loss: [E, N] in [0, 1], of each exit's decision; rounded to 9 decimals.
        stage_ms: [E], above 0: from one exit to the next.
        max_drop: mean loss that may be added; the decimal number that is written is meant exactly.
        shared: one threshold for all exits: the value that saves most of those that lose little enough.

    Returns:
        One per exit but the last, exactly representable in float32; ``NEVER`` where nothing should leave. A threshold
        lies half-way between the last sample that leaves and the first that stays, so that rounding in the last bits
        of an output moves no sample.
    """
    allowed = math.floor(Fraction(str(max_drop)) * loss.shape[1] * int(_GRID)) / _GRID
    search = Search(scores, loss, np.cumsum(np.asarray(stage_ms, np.float64)), allowed)
    if shared:
        return tuple(float(value) for value in search.shared())
    candidates = [search.descend(start, search.longest) for start in search.starts()]
    return tuple(settle(scores, min(candidates, key=search.rank)))


@dataclass(frozen=True)
class Scan:
    """What the values of a threshold do, most careful first.

    Attributes:
        values: float32 [M], distinct and falling.
        lost: float64 [M], loss added to what it is if it never fires, summed over the samples; negative: less loss.
        saved: float64 [M], ms less, summed over the samples; rising.
    """

    values: Scores
    lost: Losses
    saved: npt.NDArray[np.float64]

    @classmethod
    def of(cls, values: Scores, lost: Losses, saved: npt.NDArray[np.float64]) -> Scan:
        """From one entry per sample, by falling value; equal ones leave together."""
        ends = np.flatnonzero(np.diff(values, append=np.float32(-1)))
        return cls(values[ends], np.cumsum(lost)[ends], np.cumsum(saved)[ends])


# from a scan and the loss at its zero to the value to take
Rule = Callable[[Scan, float], float]


@dataclass(frozen=True)
class Search:
    """Thresholds on given samples, one exit at a time.

    Attributes:
        scores: float32 [E-1, N].
        loss: [E, N], which becomes float64, rounded to multiples of 2**-30.
        costs: float64 [E], ms until each exit.
        allowed: loss that may be added, summed over the samples.
        orders: int64 [E-1, N], the samples by falling score.
    """

    scores: Scores
    loss: npt.NDArray[np.floating]
    costs: npt.NDArray[np.float64]
    allowed: float
    orders: Exits = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss", np.rint(np.multiply(self.loss, _GRID, dtype=np.float64)) / _GRID)
        object.__setattr__(self, "orders", np.argsort(-self.scores, axis=1, kind="stable"))

    @property
    def most(self) -> float:
        """The largest sum of losses that is allowed."""
        return self._last + self.allowed

    @property
    def _last(self) -> float:
        return float(self.loss[-1].sum())

    def rank(self, thresholds: Thresholds) -> tuple[bool, float, float]:
        """Smaller is better: loses no more than allowed, costs little, loses little."""
        left = leave(self.scores, thresholds)
        total = self.total(left)
        counts = np.bincount(left, minlength=len(self.costs))
        return total > self.most, float(counts @ self.costs), total

    def total(self, left: Exits) -> float:
        """The sum of losses when the samples leave there."""
        return float(self.loss[left, np.arange(len(left))].sum())

    def longest(self, scan: Scan, total: float) -> float:
        """The value that saves most among those that lose no more than allowed."""
        kept = np.flatnonzero(total + scan.lost <= self.most)
        return float(scan.values[kept[-1]]) if len(kept) else NEVER

    def descend(self, thresholds: Thresholds, rule: Rule) -> Thresholds:
        """Set one threshold after the other by the rule, until none changes."""
        chosen: Thresholds = thresholds.copy()
        for _ in range(_SWEEPS):
            before = chosen.copy()
            for exit_ in range(len(chosen)):
                chosen[exit_] = NEVER
                left = leave(self.scores, chosen)
                chosen[exit_] = rule(self._scan(exit_, left), self.total(left))
            if np.array_equal(before, chosen):
                break
        return chosen

    def starts(self) -> list[Thresholds]:
        """Feasible thresholds to descend from."""
        exits = len(self.scores)
        never = np.full(exits, NEVER, np.float32)
        alone = []
        for exit_ in range(exits):
            one = never.copy()
            one[exit_] = self.longest(self._scan(exit_, leave(self.scores, never)), self._last)
            alone.append(one)
        return [self.shared(), *alone, *self._priced(never)]

    def shared(self) -> Thresholds:
        """The same value for all exits, the one that saves most of those that lose no more than allowed."""
        return np.full(len(self.scores), self.longest(self.shared_scan(), self._last), np.float32)

    def _priced(self, start: Thresholds) -> list[Thresholds]:
        """Minima of cost + price * loss, in ms; halving closes in on the smallest price that loses little enough."""
        low, high = np.log(self.costs[-1] * np.array([1e-3, 1e4]))
        minima = []
        for _ in range(_PRICES):
            middle = (low + high) / 2
            priced = self.descend(start, at_price(math.exp(middle)))
            feasible = not self.rank(priced)[0]
            low, high = (low, middle) if feasible else (middle, high)
            minima += [priced] * feasible
        return minima

    def _scan(self, exit_: int, left: Exits) -> Scan:
        """The values of one exit's threshold; ``left``: where the samples leave if it never fires."""
        rows = self.orders[exit_]
        rows = rows[left[rows] > exit_]
        later = left[rows]
        return Scan.of(
            self.scores[exit_, rows],
            self.loss[exit_, rows] - self.loss[later, rows],
            self.costs[later] - self.costs[exit_],
        )

    def shared_scan(self) -> Scan:
        """The values of one threshold for all exits.

        As it falls, a sample moves to an earlier exit each time it passes a score above all before it.
        """
        highest = np.maximum.accumulate(self.scores, axis=0)
        later = np.full(highest.shape[1], len(highest))
        values, lost, saved = [], [], []
        for exit_ in reversed(range(len(highest))):
            before = highest[exit_ - 1] if exit_ else np.float32(-1)
            rows = np.flatnonzero(highest[exit_] > before)
            values.append(highest[exit_, rows])
            lost.append(self.loss[exit_, rows] - self.loss[later[rows], rows])
            saved.append(self.costs[later[rows]] - self.costs[exit_])
            later[rows] = exit_
        order = np.argsort(-np.concatenate(values), kind="stable")
        return Scan.of(*(np.concatenate(part)[order] for part in (values, lost, saved)))


def at_price(price: float) -> Rule:
    """Take the value that saves most when a loss of 1 costs so many ms."""

    def rule(scan: Scan, total: float) -> float:  # noqa: ARG001 - what is lost already does not change the best step
        worth = scan.saved - price * scan.lost
        best = int(worth.argmax()) if len(worth) else 0
        return float(scan.values[best]) if len(worth) and worth[best] > 0 else NEVER

    return rule


def settle(scores: Scores, thresholds: Thresholds) -> list[float]:
    """The same exits on these samples, with each threshold half-way to the first sample that stays."""
    left = leave(scores, thresholds)
    settled = []
    for exit_, values in enumerate(scores):
        goes, stays = values[left == exit_], values[left > exit_]
        if len(goes) == 0:
            settled.append(NEVER)
            continue
        last, first = goes.min(), stays.max(initial=np.float32(-1))
        middle = np.float32((float(last) + float(first)) / 2)
        settled.append(float(middle if first >= 0 and middle > first else last))
    return settled
