"""What is exported: the artifacts to make, and which of a network's exits go into them. Nothing heavy is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdcompress.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from sdcompress.exporting.layout import LayoutName

__all__ = ["Target", "kept_exits"]


@dataclass(frozen=True)
class Target:
    """One artifact to be made.

    Attributes:
        out: the folder to write.
        layout: single, cascade or all.
        exit: the exit that 'single' keeps; None for the last.
        exits: those that 'cascade' and 'all' keep beside the last; none named: all.
    """

    out: Path
    layout: LayoutName
    exit: str | None = None
    exits: tuple[str, ...] = ()


def kept_exits(known: Sequence[str], wanted: Sequence[str], *, next_step: str = "") -> tuple[str, ...]:
    """The exits of a cascade, shallow to deep: those that are wanted, and the last one.

    Args:
        known: the network's exits, shallow to deep.
        wanted: names in any order; none: all exits. The last exit may be named or not.
        next_step: what to do about a name that is wrong.

    Raises:
        UnknownNameError: if there is no such exit.
        UsageError: if an exit is named twice, or the last one alone.
    """
    for name in wanted:
        if name not in known:
            raise UnknownNameError("exits", name, known, next_step)
    if twice := sorted({name for name in wanted if wanted.count(name) > 1}):
        raise UsageError(
            f"Exits to keep are named twice: {', '.join(twice)}.",
            allowed="each exit once",
            next_step=next_step or "leave the second one out",
        )
    if not wanted:
        return tuple(known)
    if set(wanted) == {known[-1]}:
        raise UsageError(
            f"'{known[-1]}' is the only exit to keep, so that nobody could leave before it.",
            allowed=f"at least one of {', '.join(known[:-1])}" if known[:-1] else "a network with early exits",
            next_step=next_step or "name an earlier exit, or take the layout 'single'",
        )
    return tuple(name for name in known if name in {*wanted, known[-1]})
