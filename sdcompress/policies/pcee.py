"""Exit when calibration samples with a similar confidence reached a high metric (PCEE)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from sdcompress.policies._base import ExitPolicy, Float, Gate, Signals

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Pcee"]

BINS = 20


@dataclass(frozen=True)
class Pcee(ExitPolicy):
    """Score a sample by the mean of 1 - loss of the calibration samples in its bin of the largest probability.

    "Performance control in early exiting" (arXiv:2412.19325): all exits share one threshold, which means the same at
    each. Where losses are 0 or 1 it is an accuracy. Bins hold equal numbers of samples. Adjacent bins are pooled until
    their means rise with the probability, so that a bin is not ahead of more confident ones by chance.

    Attributes:
        edges: for each exit but the last, the probabilities at which the mean rises, rising.
        levels: the means, for each exit but the last; one more than edges.
    """

    edges: Sequence[Sequence[float]]
    levels: Sequence[Sequence[float]]
    needs: ClassVar[tuple[str, ...]] = ("max_prob",)
    shared: ClassVar[bool] = True

    @classmethod
    def fit(cls, signals: Sequence[Signals], loss: Float) -> Self:
        """Return the policy with the bins of every exit and their means."""
        tables = [_table(exit_["max_prob"], loss[k]) for k, exit_ in enumerate(signals[:-1])]
        return cls([edges for edges, _ in tables], [levels for _, levels in tables])

    def score(self, exit_index: int, signals: Sequence[Signals]) -> Float:
        """Return the mean of the bin, as a sum of the steps below the probability."""
        best, levels = signals[-1]["max_prob"], self.levels[exit_index]
        level: Float = np.add(np.multiply(best, np.float32(0)), np.float32(levels[0]))
        for edge, below, above in zip(self.edges[exit_index], levels, levels[1:], strict=False):
            level = np.add(level, np.multiply(np.greater_equal(best, np.float32(edge)), np.float32(above - below)))
        capped: Float = np.minimum(level, np.float32(1))
        return capped

    def gate(self, exit_index: int, threshold: np.float32) -> Gate:
        """Return a gate with one comparison instead of a sum: a rising score reaches the threshold from one edge on."""
        edges = np.array([-np.inf, *self.edges[exit_index]], np.float32)
        levels = np.array(self.levels[exit_index])
        steps = np.diff(levels)
        if (np.diff(edges) < 0).any() or (steps < 0).any():
            return super().gate(exit_index, threshold)
        reached = np.minimum(np.add.accumulate(np.array([levels[0], *steps], np.float32)), np.float32(1)) >= threshold
        edge = edges[reached.argmax()] if reached.any() else np.float32(np.inf)

        def exits_here(signals: Sequence[Signals]) -> npt.NDArray[np.bool_]:
            reached: npt.NDArray[np.bool_] = np.greater_equal(signals[-1]["max_prob"], edge)
            return reached

        return exits_here


def _table(best: Float, loss: Float) -> tuple[list[float], list[float]]:
    """Return edges and levels of one exit, of its largest probabilities and losses [N]."""
    order = np.argsort(best, kind="stable")
    starts = np.linspace(0, len(order), BINS + 1).round().astype(int)[1:-1]
    # equal confidences share a bin; of fewer samples than half the bins the last start is rounded beyond them
    edges = np.unique(best[order[np.minimum(starts, len(order) - 1)]])
    inside = np.searchsorted(edges, best, side="right")
    counts = np.bincount(inside, minlength=len(edges) + 1)
    sums = np.bincount(inside, weights=1 - loss.astype(np.float64), minlength=len(edges) + 1)
    levels = _isotonic_means(sums, counts)
    steps = [step for step, (below, above) in enumerate(pairwise(levels)) if above > below]
    return [float(edges[step]) for step in steps], [levels[0], *(levels[step + 1] for step in steps)]


def _isotonic_means(sums: npt.ArrayLike, counts: npt.NDArray[np.integer]) -> list[float]:
    """Pool adjacent bins until the means rise (isotonic regression, weighted by the samples)."""
    pools: list[tuple[float, int, int]] = []  # sum of 1 - loss, samples, bins
    for total, count in zip(np.asarray(sums), counts, strict=True):
        pool = (float(total), int(count), 1)
        while pools and pools[-1][0] * max(pool[1], 1) >= pool[0] * max(pools[-1][1], 1):
            total_before, count_before, bins = pools.pop()
            pool = (total_before + pool[0], count_before + pool[1], bins + pool[2])
        pools.append(pool)
    return [total / max(count, 1) for total, count, bins in pools for _ in range(bins)]
