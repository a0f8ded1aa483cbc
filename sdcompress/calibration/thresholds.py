"""Choose exit thresholds of low mean cost whose mean loss on the given samples is allowed.

Every candidate is counted, none is estimated. For one threshold all samples are sorted by score once. Two cumulative
sums then give the added loss and the saved time of every value that the threshold can take.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from sdcompress.policies import exit_index_of

__all__ = ["NEVER", "ThresholdSearch", "choose_thresholds", "lagrangian_rule"]

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
    """Return thresholds of low mean cost whose mean loss is at most that of the last exit + max_drop on these samples.

    The search is coordinate descent from several starts: one threshold for all exits, one exit alone, and the minima of
    cost + price * loss for a range of prices, which spread the allowed loss over the exits. The result is never worse
    than any start; it is not proved to be optimal. It is deterministic.

    Args:
        scores: float32 [E-1, N], of all exits but the last, N > 0, each in [0, 1].
        loss: [E, N] in [0, 1], of each exit's decision; rounded to multiples of 2**-30.
        stage_ms: [E], above 0: from one exit to the next.
        max_drop: mean loss that may be added, taken as the exact decimal number.
        shared: choose one threshold for all exits.

    Returns:
        One per exit but the last, exactly representable in float32; ``NEVER`` where no sample should exit. A threshold
        lies half-way between the lowest score that exits and the highest that does not, so that rounding in the last
        bits of an output moves no sample.
    """
    allowed = math.floor(Fraction(str(max_drop)) * loss.shape[1] * int(_GRID)) / _GRID
    search = ThresholdSearch(scores, loss, np.cumsum(np.asarray(stage_ms, np.float64)), allowed)
    if shared:
        return tuple(float(value) for value in search.shared())
    candidates = [search.descend(start, search.cheapest_feasible) for start in search.starts()]
    return tuple(_midpoint_thresholds(scores, min(candidates, key=search.objective)))


@dataclass(frozen=True)
class ThresholdSweep:
    """Added loss and saved time for each value of a threshold, safest first, compared with ``NEVER``.

    Attributes:
        values: float32 [M], distinct and falling.
        lost: float64 [M], added loss, summed over the samples; negative where the loss falls.
        saved: float64 [M], saved ms, summed over the samples; rising.
    """

    values: Scores
    lost: Losses
    saved: npt.NDArray[np.float64]

    @classmethod
    def of(cls, values: Scores, lost: Losses, saved: npt.NDArray[np.float64]) -> ThresholdSweep:
        """Build a sweep from one entry per sample, by falling value; equal values exit together."""
        ends = np.flatnonzero(np.diff(values, append=np.float32(-1)))
        return cls(values[ends], np.cumsum(lost)[ends], np.cumsum(saved)[ends])


# from a sweep and the sum of losses without this threshold to the chosen value
Rule = Callable[[ThresholdSweep, float], float]


class ThresholdSearch:
    """Search thresholds on given samples, one exit at a time.

    Args:
        scores: float32 [E-1, N].
        loss: [E, N].
        costs: float64 [E], ms up to each exit.
        allowed: loss that may be added, summed over the samples.

    Attributes:
        scores: as given.
        loss: float64 [E, N], rounded to multiples of 2**-30.
        costs: as given.
        loss_limit: the largest sum of losses that is allowed.
    """

    def __init__(
        self, scores: Scores, loss: npt.NDArray[np.floating], costs: npt.NDArray[np.float64], allowed: float
    ) -> None:
        self.scores, self.costs = scores, costs
        self.loss: Losses = np.rint(np.multiply(loss, _GRID, dtype=np.float64)) / _GRID
        self._loss_at_last = float(self.loss[-1].sum())
        self.loss_limit = self._loss_at_last + allowed
        self._orders = np.argsort(-scores, axis=1, kind="stable")  # of each exit: the samples by falling score

    def objective(self, thresholds: Thresholds) -> tuple[bool, float, float]:
        """Return the sort key of thresholds, smallest best: infeasible, cost in ms, sum of losses."""
        exit_index = exit_index_of(self.scores, thresholds)
        total = self.total(exit_index)
        counts = np.bincount(exit_index, minlength=len(self.costs))
        return total > self.loss_limit, float(counts @ self.costs), total

    def total(self, exit_index: Exits) -> float:
        """Return the sum of losses for these exit indices [N]."""
        return float(self.loss[exit_index, np.arange(len(exit_index))].sum())

    def cheapest_feasible(self, sweep: ThresholdSweep, total: float) -> float:
        """Return the value that saves most among those whose loss is allowed; ``NEVER`` if there is none."""
        kept = np.flatnonzero(total + sweep.lost <= self.loss_limit)
        return float(sweep.values[kept[-1]]) if len(kept) else NEVER

    def descend(self, thresholds: Thresholds, rule: Rule) -> Thresholds:
        """Set one threshold after the other by the rule, until none changes."""
        chosen: Thresholds = thresholds.copy()
        for _ in range(_SWEEPS):
            before = chosen.copy()
            for k in range(len(chosen)):
                chosen[k] = NEVER
                exit_index = exit_index_of(self.scores, chosen)
                chosen[k] = rule(self._sweep(k, exit_index), self.total(exit_index))
            if np.array_equal(before, chosen):
                break
        return chosen

    def starts(self) -> list[Thresholds]:
        """Return feasible thresholds from which to descend."""
        exits = len(self.scores)
        never = np.full(exits, NEVER, np.float32)
        last_exit = exit_index_of(self.scores, never)
        single_exits = []
        for k in range(exits):
            single = never.copy()
            single[k] = self.cheapest_feasible(self._sweep(k, last_exit), self._loss_at_last)
            single_exits.append(single)
        return [self.shared(), *single_exits, *self._priced(never)]

    def shared(self) -> Thresholds:
        """Return one value for all exits, the one that saves most among those whose loss is allowed."""
        return np.full(len(self.scores), self.cheapest_feasible(self.shared_sweep(), self._loss_at_last), np.float32)

    def _priced(self, start: Thresholds) -> list[Thresholds]:
        """Return the feasible minima of cost + price * loss, in ms, by bisection to the smallest feasible price."""
        low, high = np.log(self.costs[-1] * np.array([1e-3, 1e4]))
        minima = []
        for _ in range(_PRICES):
            middle = (low + high) / 2
            priced = self.descend(start, lagrangian_rule(math.exp(middle)))
            feasible = not self.objective(priced)[0]
            low, high = (low, middle) if feasible else (middle, high)
            minima += [priced] * feasible
        return minima

    def _sweep(self, k: int, exit_index: Exits) -> ThresholdSweep:
        """Return the sweep of the threshold of exit k; ``exit_index`` holds the exits while it is ``NEVER``."""
        rows = self._orders[k]
        rows = rows[exit_index[rows] > k]
        later = exit_index[rows]
        return ThresholdSweep.of(
            self.scores[k, rows], self.loss[k, rows] - self.loss[later, rows], self.costs[later] - self.costs[k]
        )

    def shared_sweep(self) -> ThresholdSweep:
        """Return the sweep of one threshold for all exits.

        As it falls, a sample moves to an earlier exit each time it passes a score above those of all earlier exits.
        """
        highest = np.maximum.accumulate(self.scores, axis=0)
        later = np.full(highest.shape[1], len(highest))
        values, lost, saved = [], [], []
        for k in reversed(range(len(highest))):
            before = highest[k - 1] if k else np.float32(-1)
            rows = np.flatnonzero(highest[k] > before)
            values.append(highest[k, rows])
            lost.append(self.loss[k, rows] - self.loss[later[rows], rows])
            saved.append(self.costs[later[rows]] - self.costs[k])
            later[rows] = k
        order = np.argsort(-np.concatenate(values), kind="stable")
        return ThresholdSweep.of(*(np.concatenate(part)[order] for part in (values, lost, saved)))


def lagrangian_rule(price: float) -> Rule:
    """Return the rule that takes the value of the lowest cost + price * loss; the price is in ms for a loss of 1."""

    def rule(sweep: ThresholdSweep, total: float) -> float:  # noqa: ARG001 - the best value does not depend on the sum
        gains = sweep.saved - price * sweep.lost
        best = int(gains.argmax()) if len(gains) else 0
        return float(sweep.values[best]) if len(gains) and gains[best] > 0 else NEVER

    return rule


def _midpoint_thresholds(scores: Scores, thresholds: Thresholds) -> list[float]:
    """Return thresholds with the same exits on these samples, each half-way to the highest score that does not exit."""
    exit_index = exit_index_of(scores, thresholds)
    midpoints = []
    for k, values in enumerate(scores):
        exiting, staying = values[exit_index == k], values[exit_index > k]
        if len(exiting) == 0:
            midpoints.append(NEVER)
            continue
        lowest, highest = exiting.min(), staying.max(initial=np.float32(-1))
        middle = np.float32((float(lowest) + float(highest)) / 2)
        midpoints.append(float(middle if highest >= 0 and middle > highest else lowest))
    return midpoints
