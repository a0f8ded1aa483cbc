"""TensorRT's log, and errors with the reason of a failure, which is only in the log. Pure Python."""

from __future__ import annotations

import re
import weakref
from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Any, TypeVar

from sdcompress.errors import DeviceError, SetupError
from sdcompress.tensorrt.nvidia.gpu_query import MEMORY_STEP

__all__ = ["Log", "create", "dispatch", "failure", "require"]

Made = TypeVar("Made")

_NULL = "factory function returned nullptr"  # pybind11's message where TensorRT's C++ factory failed
_MEMORY = re.compile("out ?of ?memory", re.IGNORECASE)  # "Error Code 2: OutOfMemory", "Cuda Runtime (out of memory)"


# Replaced, never mutated: TensorRT logs from any thread, also while a log is created or collected, and an exception
# there would end the process inside its C++.
_live: tuple[weakref.ref[Log], ...] = ()
_writing = Lock()


def dispatch(severity: Any, msg: str) -> None:
    """Pass a message on to all live logs: TensorRT keeps only the first logger of a process."""
    for reference in _live or ():  # None where Python ends before TensorRT
        if (log := reference()) is not None:
            log.log(severity, msg)


class Log:
    """TensorRT's messages in this process during the life of this object.

    Args:
        most: number of last lines to keep; None: all, for a build.

    Attributes:
        lines: warnings and errors, as "[W] text".
        all_lines: all messages but the verbose ones.
    """

    def __init__(self, most: int | None = None) -> None:
        global _live  # noqa: PLW0603 - one logger a process is TensorRT's rule
        self.lines: deque[str] = deque(maxlen=most)
        self.all_lines: deque[str] = deque(maxlen=most)
        with _writing:
            _live = (*(live for live in _live if live() is not None), weakref.ref(self))

    def log(self, severity: Any, msg: str) -> None:
        """Add a message, from any thread; severity 0 is an internal error, 4 verbose."""
        rank = int(severity)
        if rank > 3:
            return
        line = f"[{'FEWI'[rank]}] {msg}"
        self.all_lines.append(line)
        if rank <= 2:
            self.lines.append(line)

    def note(self, line: str) -> None:
        """Add a line of our own."""
        self.all_lines.append(line)

    def reason(self) -> str:
        """Return the last errors, or the last warnings if there are none, for a message."""
        lines = list(self.lines)
        errors = [line for line in lines if line[1] in "FE"]
        return " | ".join((errors or lines)[-3:]) or "TensorRT gives no reason"


def failure(problem: str, log: Log, *, next_step: str) -> SetupError:
    """Return the error for a call into TensorRT that failed, with the reason from the log; a DeviceError for memory.

    Args:
        problem: the failed action, as the beginning of a sentence: "TensorRT cannot make a plan".
        log: that received the reason.
        next_step: for the message, unless memory is lacking.
    """
    reason = log.reason()
    if _MEMORY.search(reason):
        return DeviceError(f"{problem}: {reason}.", next_step=MEMORY_STEP)
    return SetupError(f"{problem}: {reason}.", next_step=next_step)


def create(
    make: Callable[[], Made | None], log: Log, kind: str, *, next_step: str = "run 'sdcompress doctor' on this machine"
) -> Made:
    """Return the result of a factory of TensorRT, or an error with the reason from the log.

    Args:
        make: returns None, or raises pybind11's TypeError about a null pointer, if TensorRT fails.
        log: that receives the reason.
        kind: of object, for the message.
        next_step: for the message.

    Raises:
        SetupError: if there is no result; DeviceError where memory is lacking.
    """
    try:
        result = make()
    except TypeError as error:
        if _NULL not in str(error):
            raise
        result = None
    if result is None:
        raise failure(f"TensorRT cannot make {kind}", log, next_step=next_step)
    return result


def require(
    call: Callable[[], object], log: Log, what: str, *, next_step: str = "run 'sdcompress doctor' on this machine"
) -> None:
    """Make a call into TensorRT, or raise with the reason: some calls return False, others raise.

    ``set_optimization_profile_async`` raises RuntimeError and ``set_shape`` ValueError where C++ returns false.

    Args:
        call: returns False or raises if it fails; None is success.
        log: that receives the reason.
        what: the failed action, for the message: "use profile 1".
        next_step: for the message.

    Raises:
        SetupError: if the call failed; DeviceError where memory is lacking.
    """
    try:
        succeeded, problem = call() is not False, what
    except (RuntimeError, ValueError) as error:
        succeeded, problem = False, f"{what}: {error}"
    if not succeeded:
        raise failure(f"TensorRT cannot {problem}", log, next_step=next_step)
