"""What TensorRT says and what it does not make: the reason of a failure stands only in the log. Pure Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sdcompress.errors import SetupError

__all__ = ["Log", "created"]

Made = TypeVar("Made")

_NULL = "factory function returned nullptr"  # what pybind11 says where TensorRT's C++ factory gave up


class Log:
    """What TensorRT says: the reason of a failure is only there.

    Attributes:
        lines: warnings and worse, as "[W] text".
        everything: all of it, but the verbose lines.
    """

    def __init__(self) -> None:
        super().__init__()  # ILogger's, in C++
        self.lines: list[str] = []
        self.everything: list[str] = []

    def log(self, severity: Any, msg: str) -> None:
        """Called by TensorRT, from any thread; severity 0 is an internal error, 4 verbose."""
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
        errors = [line for line in self.lines if line[1] in "FE"]
        return " | ".join((errors or self.lines)[-3:]) or "TensorRT gives no reason"


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
