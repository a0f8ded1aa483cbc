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
        exit: the exit at which the network ends; None: the last.
        exits: those that 'cascade' and 'all' keep before that; none named: all.
    """

    out: Path
    layout: LayoutName
    exit: str | None = None
    exits: tuple[str, ...] = ()


def kept_exits(
    exit_names: Sequence[str], requested: Sequence[str], *, end: str | None = None, next_step: str = ""
) -> tuple[str, ...]:
    """Return the exits of a cascade, shallow to deep: the requested ones and the one at which it ends.

    Args:
        exit_names: the network's exits, shallow to deep.
        requested: names in any order; empty: all exits up to the end, which may be named or not.
        end: the exit at which the network is truncated; default: the last.
        next_step: for the error about a wrong name.

    Raises:
        UnknownNameError: if there is no such exit.
        UsageError: if an exit is named twice or lies behind the end, or there is none before it.
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
    end = end or exit_names[-1]
    early = exit_names[: exit_names.index(end)]
    if behind := [name for name in requested if name not in {*early, end}]:
        raise UsageError(
            f"The network is truncated at '{end}', and exits to keep lie behind it: {', '.join(behind)}.",
            allowed=f"some of {', '.join(early)}" if early else "a later exit to truncate at",
            next_step=next_step or "name earlier exits to keep (--keep-exits), or truncate later (--truncate-at)",
        )
    if set(requested) == {end} or (not early and end != exit_names[-1]):
        raise UsageError(
            f"'{end}' is the only exit to keep, so that no sample could exit early.",
            allowed=f"at least one of {', '.join(early)}" if early else "a network with exits before it",
            next_step=next_step or "name an earlier exit, or take the layout 'single'",
        )
    return tuple(name for name in (*early, end) if name in {*(requested or early), end})
