"""Step down the ladder of certified levels under pressure, before requests are refused, and back up afterwards."""

from __future__ import annotations

__all__ = ["BrownOut"]

_DOWN, _UP = 0.6, 0.2  # of the room in the queue; apart, so that a level is kept for a while
_DOWN_EVERY, _UP_EVERY = 0.1, 1.0  # in latency bounds: the effect of a step has to show before the next one


class BrownOut:
    """The level for new requests, by how much of the room in the queue is taken; 0 is the policy's level.

    Args:
        levels: how many there are.
        bound: latency bound in seconds.
    """

    def __init__(self, levels: int, bound: float) -> None:
        self._deepest = levels - 1
        self._down_every, self._up_every = _DOWN_EVERY * bound, _UP_EVERY * bound
        self._changed_at = self._busy_at = float("-inf")
        self.level = 0

    def update(self, pressure: float, now: float) -> bool:
        """Take a look at the queue, and return whether the level has changed.

        Args:
            pressure: predicted wait of a new request, as a share of the wait at which it is refused.
            now: in seconds.
        """
        before = self.level
        if pressure < _UP:
            calm_since = max(self._busy_at, self._changed_at)
            if self.level and now - calm_since >= self._up_every:
                # without requests nobody looked: a long quiet time counts for several steps
                self.level = max(0, self.level - int((now - calm_since) / self._up_every))
        else:
            self._busy_at = now
            if pressure > _DOWN and self.level < self._deepest and now - self._changed_at >= self._down_every:
                self.level += 1
        if self.level != before:
            self._changed_at = now
        return self.level != before
