"""Count how many calls of a function run at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any


class ConcurrentCalls:
    """A function whose calls each take a tenth of a second more; ``most`` is the largest number at once."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self._lock = function, threading.Lock()
        self._running = self.most = 0

    def __call__(self, *arguments: Any) -> Any:
        with self._lock:
            self._running += 1
            self.most = max(self.most, self._running)
        time.sleep(0.1)
        with self._lock:
            self._running -= 1
        return self._function(*arguments)
