"""Hand values in in the order in which they were announced: shallow rows are answered before deep ones.

Counted as they are answered, the rows of a growing queue would seem to exit earlier than they do, and tests for drift
would give false alarms.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["InOrder"]

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class InOrder(Generic[_Key, _Value]):
    """Values that become known in any order.

    Args:
        hand_in: called with each value, once those of all keys before are known.
    """

    def __init__(self, hand_in: Callable[[_Value], None]) -> None:
        self._hand_in = hand_in
        self._open: dict[_Key, list[_Value]] = {}  # a key, which may be large, is forgotten once its value is known
        self._values: deque[list[_Value]] = deque()

    def announce(self, key: _Key) -> None:
        """Say that the value of a key comes."""
        value: list[_Value] = []
        self._open[key] = value
        self._values.append(value)

    def settle(self, key: _Key, value: _Value) -> None:
        """Take the value of a key; of one that was not announced it is ignored."""
        if (empty := self._open.pop(key, None)) is None:
            return
        empty.append(value)
        while self._values and self._values[0]:
            self._hand_in(self._values.popleft()[0])
