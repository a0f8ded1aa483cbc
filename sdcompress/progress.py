"""How work tells how far it is: called with (done, total), in whatever it counts."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "count", "part", "silent"]

Progress = Callable[[int, int], None]


def silent(_done: int, _total: int) -> None:
    """The progress that nobody watches."""


def part(progress: Progress | None, before: int, total: int) -> Progress | None:
    """The progress of a piece of work, as progress of the whole.

    Args:
        progress: of the whole.
        before: what is done when the piece begins.
        total: of the whole, in the unit of the piece.
    """
    return None if progress is None else lambda done, _: progress(before + done, total)


def count(progress: Progress | None, total: int) -> Callable[[int], None]:
    """A function that is told how much more is done, and adds it up.

    Args:
        progress: is told the sum, ``total`` at most.
        total: of the whole.
    """
    done = 0

    def add(more: int) -> None:
        nonlocal done
        done = min(done + more, total)
        if progress is not None:
            progress(done, total)

    return add
