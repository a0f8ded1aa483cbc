"""Choose the units to remove at a ratio: the least important of all layers, or of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Candidate", "removed_units"]

_LEAST = 0.1  # share of its units that a group keeps, so that global ranking empties no layer


@dataclass(frozen=True)
class Candidate:
    """A group that may be pruned.

    Attributes:
        at: its position in the graph's groups.
        scores: importance of its units, [U].
        channels: of a unit; more than one where whole attention heads are removed.
    """

    at: int
    scores: npt.NDArray[np.float64]
    channels: int


def removed_units(
    candidates: Sequence[Candidate], ratio: float, ranking: Literal["global", "layer"], round_to: int
) -> dict[int, tuple[int, ...]]:
    """Return the units to remove of each group from which some are removed, by its position.

    A group keeps a multiple of ``round_to`` channels, the nearest one, or all; at least a tenth, and ``round_to``. In a
    group of fewer than twice as many channels it is a multiple of a half, a quarter ... of ``round_to``.

    Args:
        candidates: the groups.
        ratio: share of all units that is asked for, 0..1; rounding changes it.
        ranking: global: over all groups together; layer: the same share of each.
        round_to: of groups whose units are single channels.
    """
    if not candidates:
        return {}
    every = np.sort(np.concatenate([candidate.scores for candidate in candidates]))
    count = round(ratio * len(every))
    limit = every[count - 1] if count else -np.inf
    removed = {}
    for candidate in candidates:
        units = len(candidate.scores)
        asked = int((candidate.scores <= limit).sum()) if ranking == "global" else round(ratio * units)
        kept = _rounded(units - asked, units, round_to if candidate.channels == 1 else 1)
        if kept < units:
            order = np.argsort(candidate.scores, kind="stable")
            removed[candidate.at] = tuple(sorted(map(int, order[: units - kept])))
    return removed


def _rounded(kept: int, units: int, step: int) -> int:
    while step > 1 and units < 2 * step:
        step //= 2
    least = -(-max(1, round(_LEAST * units)) // step) * step
    return min(units, max(least, step * int(kept / step + 0.5)))
