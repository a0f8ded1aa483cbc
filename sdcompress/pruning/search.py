"""Find the smallest ratio at which a network meets its target."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from sdcompress.errors import UsageError

__all__ = ["Found", "smallest_ratio"]

Choice = TypeVar("Choice", bound=Hashable)


@dataclass(frozen=True)
class Found(Generic[Choice]):
    """A ratio that meets the target.

    Attributes:
        ratio: 0..1.
        choice: what is removed at it.
        cost: of the network without it.
    """

    ratio: float
    choice: Choice
    cost: float


def smallest_ratio(
    choose: Callable[[float], Choice],
    cost: Callable[[Choice], float],
    limit: float,
    *,
    steps: int,
    shown: Callable[[float], str],
) -> Found[Choice]:
    """Bisect the ratio; a choice that was measured once is not measured again.

    Args:
        choose: what is removed at a ratio.
        cost: of the network without it; it falls as the ratio grows.
        limit: that the cost may not exceed.
        steps: of the bisection.
        shown: a cost as text.

    Raises:
        UsageError: if the cost at the largest ratio exceeds the limit; it names the smallest cost.
    """
    measured: dict[Choice, float] = {}

    def at(ratio: float) -> Found[Choice]:
        choice = choose(ratio)
        if choice not in measured:
            measured[choice] = cost(choice)
        return Found(ratio, choice, measured[choice])

    low, best = 0.0, at(1.0)
    if best.cost > limit:
        raise UsageError(
            f"The target is {shown(limit)}, and the network cannot be pruned below {shown(best.cost)}.",
            allowed=f"a target of at least {shown(best.cost)}",
            next_step="choose a larger target, a smaller round_to, or normalised=true for networks with layer norms",
        )
    for _ in range(steps):
        middle = (low + best.ratio) / 2
        if (found := at(middle)).cost <= limit:
            best = found
        else:
            low = middle
    return best
