"""Thresholds of the exits: the cheapest found that loses no more answers than allowed, on the samples given.

Every candidate is counted, none is estimated: along one threshold all samples are sorted by confidence once, and two
cumulative sums give the answers gained and the time saved for every value that the threshold can take.
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

NEVER = 2.0  # no confidence is above 1

Confidences = npt.NDArray[np.float32]
Exits = npt.NDArray[np.int64]
Thresholds = npt.NDArray[np.float32]

_SWEEPS = 20
_PRICES = 16


def choose_thresholds(
    confidences: Confidences,
    right: npt.NDArray[np.bool_],
    stage_ms: npt.ArrayLike,
    max_drop: float,
    *,
    shared: bool = False,
) -> tuple[float, ...]:
    """Thresholds of small mean cost with accuracy >= that of the last exit - max_drop, on these samples.

    Coordinate descent from several starts: one threshold for all exits, one exit alone, and the minima of
    cost + price * mistakes for a range of prices, which spread the allowed loss over the exits. The result is never
    worse than any start, and not proved to be the best. The same numbers give the same thresholds.

    Args:
        confidences: float32 [E-1, N], of all exits but the last, N > 0, each in [0, 1].
        right: bool [E, N], whether each exit's answer is right.
        stage_ms: [E], above 0: from one exit to the next.
        max_drop: accuracy that may be lost, as a share of N; the decimal number that is written is meant exactly.
        shared: one threshold for all exits: the value that saves most of those that keep enough.

    Returns:
        One per exit but the last, exactly representable in float32; ``NEVER`` where nothing should leave. A threshold
        lies half-way between the last sample that leaves and the first that stays, so that rounding in the last bits
        of a logit moves no sample.
    """
    allowed = math.floor(Fraction(str(max_drop)) * right.shape[1])
    search = Search(confidences, right.astype(np.int64), np.cumsum(np.asarray(stage_ms, np.float64)), allowed)
    if shared:
        return tuple(float(value) for value in search.shared())
    found = [search.descend(start, search.longest) for start in search.starts()]
    best = min(found, key=search.rank)
    return tuple(settle(confidences, best))


@dataclass(frozen=True)
class Scan:
    """What the values of a threshold do, most careful first.

    Attributes:
        values: float32 [M], distinct and falling.
        gained: int64 [M], right answers more than if it never fired (negative: lost).
        saved: float64 [M], ms less, summed over the samples; rising.
    """

    values: Confidences
    gained: Exits
    saved: npt.NDArray[np.float64]

    @classmethod
    def of(cls, values: Confidences, gained: Exits, saved: npt.NDArray[np.float64]) -> Scan:
        """From one entry per sample, by falling value; equal ones leave together."""
        ends = np.flatnonzero(np.diff(values, append=np.float32(-1)))
        return cls(values[ends], np.cumsum(gained)[ends], np.cumsum(saved)[ends])


# from a scan and the right answers at its zero to the value to take
Rule = Callable[[Scan, int], float]


@dataclass(frozen=True)
class Search:
    """Thresholds on given samples, one exit at a time.

    Attributes:
        confidences: float32 [E-1, N].
        right: int64 [E, N], 0 or 1: whether each exit's answer counts as right.
        costs: float64 [E], ms until each exit.
        allowed: right answers that may be lost.
        orders: int64 [E-1, N], the samples by falling confidence.
    """

    confidences: Confidences
    right: Exits
    costs: npt.NDArray[np.float64]
    allowed: int
    orders: Exits = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "orders", np.argsort(-self.confidences, axis=1, kind="stable"))

    @property
    def needed(self) -> int:
        """Right answers that must remain."""
        return int(self.right[-1].sum()) - self.allowed

    def rank(self, thresholds: Thresholds) -> tuple[bool, float, int]:
        """Smaller is better: keeps enough right answers, costs little, has many right answers."""
        left = leave(self.confidences, thresholds)
        rights = self.rights(left)
        counts = np.bincount(left, minlength=len(self.costs))
        return rights < self.needed, float(counts @ self.costs), -rights

    def rights(self, left: Exits) -> int:
        """Right answers when the samples leave there."""
        return int(self.right[left, np.arange(len(left))].sum())

    def longest(self, scan: Scan, rights: int) -> float:
        """The value that saves most among those that keep enough right answers."""
        kept = np.flatnonzero(rights + scan.gained >= self.needed)
        return float(scan.values[kept[-1]]) if len(kept) else NEVER

    def descend(self, thresholds: Thresholds, rule: Rule) -> Thresholds:
        """Set one threshold after the other by the rule, until none changes."""
        found: Thresholds = thresholds.copy()
        for _ in range(_SWEEPS):
            before = found.copy()
            for exit_ in range(len(found)):
                found[exit_] = NEVER
                left = leave(self.confidences, found)
                found[exit_] = rule(self._scan(exit_, left), self.rights(left))
            if np.array_equal(before, found):
                break
        return found

    def starts(self) -> list[Thresholds]:
        """Feasible thresholds to descend from."""
        exits = len(self.confidences)
        never = np.full(exits, NEVER, np.float32)
        rights = int(self.right[-1].sum())
        alone = []
        for exit_ in range(exits):
            one = never.copy()
            one[exit_] = self.longest(self._scan(exit_, leave(self.confidences, never)), rights)
            alone.append(one)
        return [self.shared(), *alone, *self._priced(never)]

    def shared(self) -> Thresholds:
        """The same value for all exits, the one that saves most of those that keep enough right answers."""
        value = self.longest(self.shared_scan(), int(self.right[-1].sum()))
        return np.full(len(self.confidences), value, np.float32)

    def _priced(self, start: Thresholds) -> list[Thresholds]:
        """Minima of cost + price * mistakes, in ms; halving closes in on the smallest price that keeps enough."""
        low, high = np.log(self.costs[-1] * np.array([1e-3, 1e4]))
        found = []
        for _ in range(_PRICES):
            middle = (low + high) / 2
            priced = self.descend(start, at_price(math.exp(middle)))
            feasible = not self.rank(priced)[0]
            low, high = (low, middle) if feasible else (middle, high)
            found += [priced] * feasible
        return found

    def _scan(self, exit_: int, left: Exits) -> Scan:
        """The values of one exit's threshold; ``left``: where the samples leave if it never fires."""
        rows = self.orders[exit_]
        rows = rows[left[rows] > exit_]
        later = left[rows]
        return Scan.of(
            self.confidences[exit_, rows],
            self.right[exit_, rows] - self.right[later, rows],
            self.costs[later] - self.costs[exit_],
        )

    def shared_scan(self) -> Scan:
        """The values of one threshold for all exits.

        As it falls, a sample moves to an earlier exit each time it passes a confidence above all before it.
        """
        highest = np.maximum.accumulate(self.confidences, axis=0)
        later = np.full(highest.shape[1], len(highest))
        values, gained, saved = [], [], []
        for exit_ in reversed(range(len(highest))):
            before = highest[exit_ - 1] if exit_ else np.float32(-1)
            rows = np.flatnonzero(highest[exit_] > before)
            values.append(highest[exit_, rows])
            gained.append(self.right[exit_, rows] - self.right[later[rows], rows])
            saved.append(self.costs[later[rows]] - self.costs[exit_])
            later[rows] = exit_
        order = np.argsort(-np.concatenate(values), kind="stable")
        return Scan.of(*(np.concatenate(part)[order] for part in (values, gained, saved)))


def at_price(price: float) -> Rule:
    """Take the value that saves most when every right answer that is lost costs so many ms."""

    def rule(scan: Scan, rights: int) -> float:  # noqa: ARG001 - what is right already does not change the best step
        worth = scan.saved + price * scan.gained
        best = int(worth.argmax()) if len(worth) else 0
        return float(scan.values[best]) if len(worth) and worth[best] > 0 else NEVER

    return rule


def settle(confidences: Confidences, thresholds: Thresholds) -> list[float]:
    """The same exits on these samples, with each threshold half-way to the first sample that stays."""
    left = leave(confidences, thresholds)
    settled = []
    for exit_, found in enumerate(confidences):
        goes, stays = found[left == exit_], found[left > exit_]
        if len(goes) == 0:
            settled.append(NEVER)
            continue
        last, first = goes.min(), stays.max(initial=np.float32(-1))
        middle = np.float32((float(last) + float(first)) / 2)
        settled.append(float(middle if first >= 0 and middle > first else last))
    return settled
