"""Defer Ctrl-C during a build, and stop the builder between its steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from sdcompress.errors import SetupError

__all__ = ["deferred_interrupt"]


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Raise the KeyboardInterrupt of a Ctrl-C at the end of the block, not within it.

    A build calls back into Python from C++, where an exception would end the process. TensorRT 8 does not call back:
    there the interrupt waits until the plan is done.

    Yields:
        A function that tells whether Ctrl-C was pressed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread receives signals
        return
    interrupted = threading.Event()

    def handler(_number: int, _frame: FrameType | None) -> None:
        interrupted.set()

    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield interrupted.is_set
    except SetupError:
        if interrupted.is_set():  # a stopped build looks like one that failed
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, previous)
    if interrupted.is_set():
        raise KeyboardInterrupt
