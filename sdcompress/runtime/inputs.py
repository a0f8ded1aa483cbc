"""Arguments of an engine's calls, checked once."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sdcompress.errors import InputError

__all__ = ["checked_temperatures", "exit_position"]


def checked_temperatures(temperatures: Sequence[float], exits: int) -> tuple[float, ...]:
    """Return one temperature for each exit.

    Args:
        temperatures: what the caller gave.
        exits: how many there are.

    Raises:
        InputError: if there are more or fewer, or one is no finite number above 0.
    """
    if len(temperatures) == exits and all(0 < temperature < math.inf for temperature in temperatures):
        return tuple(temperatures)
    raise InputError(
        f"The temperatures are {list(temperatures)}.",
        allowed=f"{exits} finite numbers above 0, one for each exit",
        next_step="leave them out to take those of the artifact",
    )


def exit_position(exit: int, names: tuple[str, ...]) -> int:  # noqa: A002 - the field's word
    """Return the exit as a position from the front.

    Args:
        exit: a position; negative counts from the last.
        names: of the exits.

    Raises:
        InputError: if there is no such exit.
    """
    if not -len(names) <= exit < len(names):
        raise InputError(
            f"There is no exit {exit}.",
            allowed=", ".join(f"{position} ({name})" for position, name in enumerate(names)),
            next_step="choose one of them",
        )
    return exit % len(names)
