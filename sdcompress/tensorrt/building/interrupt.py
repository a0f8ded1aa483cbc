"""Ctrl-C during a build: noted, and told to the builder between its steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from sdcompress.errors import SetupError

__all__ = ["noted"]


@contextmanager
def noted() -> Iterator[Callable[[], bool]]:
    """Within the block Ctrl-C raises nothing; at its end, if there was one, KeyboardInterrupt.

    A build calls back into Python from C++, where an exception would end the process. TensorRT 8 does not call back:
    there it is heard when the plan is done.

    Yields:
        Whether there was one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread hears of it
        return
    heard = threading.Event()

    def note(_number: int, _frame: FrameType | None) -> None:
        heard.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield heard.is_set
    except SetupError:
        if heard.is_set():  # what was given up looks like a build that failed
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)
    if heard.is_set():
        raise KeyboardInterrupt
