"""Report the progress of work: a function of (done, total), in any unit."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "no_progress", "progress_counter", "subprogress"]

Progress = Callable[[int, int], None]


def no_progress(_done: int, _total: int) -> None:
    """Ignore progress."""


def subprogress(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Return a function that reports the progress of a part of the work as progress of the whole.

    Args:
        progress: of the whole.
        before: done when the part begins.
        total: of the whole, in the unit of the part.
    """
    return None if progress is None else lambda done, _: progress(before + done, total)


def progress_counter(progress: Progress | None, total: int) -> Callable[[int], None]:
    """Return a function that adds up increments and reports their sum.

    Args:
        progress: called with (sum, total); the sum is at most ``total``.
        total: of the whole.
    """
    done = 0

    def add(increment: int) -> None:
        nonlocal done
        done = min(done + increment, total)
        if progress is not None:
            progress(done, total)

    return add
