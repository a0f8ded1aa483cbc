"""What is exported: the artifacts to make, and which of a network's exits go into them. Nothing heavy is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdcompress.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from sdcompress.exporting.layout import LayoutName

__all__ = ["ExportSpec", "kept_exits"]


@dataclass(frozen=True)
class ExportSpec:
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


def kept_exits(exit_names: Sequence[str], requested: Sequence[str], *, next_step: str = "") -> tuple[str, ...]:
    """Return the exits of a cascade, shallow to deep: the requested ones and the last one.

    Args:
        exit_names: the network's exits, shallow to deep.
        requested: names in any order; empty: all exits. The last exit may be named or not.
        next_step: for the error about a wrong name.

    Raises:
        UnknownNameError: if there is no such exit.
        UsageError: if an exit is named twice, or the last one alone.
    """
    for name in requested:
        if name not in exit_names:
            raise UnknownNameError("exits", name, exit_names, next_step)
    if twice := sorted({name for name in requested if requested.count(name) > 1}):
        raise UsageError(
            f"Exits to keep are named twice: {', '.join(twice)}.",
            allowed="each exit once",
            next_step=next_step or "remove the second one",
        )
    if not requested:
        return tuple(exit_names)
    *early, last = exit_names
    if set(requested) == {last}:
        raise UsageError(
            f"'{last}' is the only exit to keep, so that no sample could exit early.",
            allowed=f"at least one of {', '.join(early)}" if early else "a network with early exits",
            next_step=next_step or "name an earlier exit, or take the layout 'single'",
        )
    return tuple(name for name in exit_names if name in {*requested, last})
