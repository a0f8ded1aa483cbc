"""What TensorRT says and what it does not make: the reason of a failure stands only in the log. Pure Python."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Any, TypeVar

from sdcompress.errors import SetupError

__all__ = ["Log", "created", "hear", "must"]

Made = TypeVar("Made")

_NULL = "factory function returned nullptr"  # what pybind11 says where TensorRT's C++ factory gave up


# Replaced as a whole, never changed: TensorRT speaks from any thread, also while a log is made or collected, and an
# exception there would end the process inside its C++.
_live: tuple[weakref.ref[Log], ...] = ()
_writing = Lock()


def hear(severity: Any, msg: str) -> None:
    """What the process's only logger does: TensorRT keeps the first that it is given, so all logs hear all of it."""
    for reference in _live or ():  # None where Python ends before TensorRT
        if (log := reference()) is not None:
            log.log(severity, msg)


class Log:
    """What TensorRT says in this process while this is kept: the reason of a failure is only there.

    Args:
        most: lines that are kept, the last ones; None: all, for a build, which ends.

    Attributes:
        lines: warnings and worse, as "[W] text".
        everything: all of it, but the verbose lines.
    """

    def __init__(self, most: int | None = None) -> None:
        global _live  # noqa: PLW0603 - one logger a process is TensorRT's rule
        self.lines: deque[str] = deque(maxlen=most)
        self.everything: deque[str] = deque(maxlen=most)
        with _writing:
            _live = (*(other for other in _live if other() is not None), weakref.ref(self))

    def log(self, severity: Any, msg: str) -> None:
        """A line from any thread; severity 0 is an internal error, 4 verbose."""
        rank = int(severity)
        if rank > 3:
            return
        line = f"[{'FEWI'[rank]}] {msg}"
        self.everything.append(line)
        if rank <= 2:
            self.lines.append(line)

    def note(self, line: str) -> None:
        """A line of ours among TensorRT's."""
        self.everything.append(line)

    def reason(self) -> str:
        """The last errors, or the last warnings where there are none, for a message."""
        lines = list(self.lines)
        errors = [line for line in lines if line[1] in "FE"]
        return " | ".join((errors or lines)[-3:]) or "TensorRT gives no reason"


def created(
    make: Callable[[], Made | None], log: Log, what: str, *, next_step: str = "run 'sdcompress doctor' on this machine"
) -> Made:
    """What a factory of TensorRT makes, or an error with the reason, which is only in the log.

    Args:
        make: returns None, or raises pybind11's TypeError about a null pointer, where TensorRT cannot.
        log: that TensorRT was given.
        what: is made, for the message.
        next_step: for the message.

    Raises:
        SetupError: if nothing was made.
    """
    try:
        made = make()
    except TypeError as error:
        if _NULL not in str(error):
            raise
        made = None
    if made is None:
        raise SetupError(f"TensorRT cannot make {what}: {log.reason()}.", next_step=next_step)
    return made


def must(
    call: Callable[[], object], log: Log, what: str, *, next_step: str = "run 'sdcompress doctor' on this machine"
) -> None:
    """Let TensorRT do something, or raise with the reason: some of its calls give False, others raise.

    ``set_optimization_profile_async`` raises RuntimeError and ``set_shape`` ValueError where C++ gives false.

    Args:
        call: gives False or raises where it cannot; None is success.
        log: that hears why.
        what: TensorRT cannot, for the message: "use profile 1".
        next_step: for the message.

    Raises:
        SetupError: if it was not done.
    """
    try:
        done, said = call() is not False, ""
    except (RuntimeError, ValueError) as error:
        done, said = False, f"{error} "
    if not done:
        raise SetupError(f"TensorRT cannot {what}: {said}{log.reason()}.", next_step=next_step)
