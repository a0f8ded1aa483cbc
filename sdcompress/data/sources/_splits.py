"""The splits of a user's data set: what they are called, and which of their examples are left out."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

from sdcompress.errors import DataError, RecipeError

__all__ = ["Named", "has_splits", "left_out", "published_splits"]

_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


class Named(Protocol):
    """Examples that have names."""

    def __len__(self) -> int: ...

    def name(self, position: int) -> str:
        """Return what ``data.exclude`` calls an example."""


def has_splits(names: Collection[str]) -> bool:
    """Return whether folder names are names of splits, not of classes."""
    folded = {name.casefold() for name in names}
    # a class may be called 'training'
    return "train" in folded or (not folded.isdisjoint(_SPLITS["train"]) and not folded.isdisjoint(_SPLITS["test"]))


def published_splits(names: Collection[str], place: Path) -> dict[str, str]:
    """Map ``train``, ``val`` and ``test`` to the names that a data set uses for them, in any case.

    Args:
        names: names of its splits; unknown ones are skipped with a warning.
        place: location of the data set, for messages.

    Returns:
        Names of ``train``, ``test`` and, if there is one, ``val``.

    Raises:
        DataError: if train or test is missing, or a split has two names.
    """
    names_by_split = {
        split: sorted(name for name in names if name.casefold() in aliases) for split, aliases in _SPLITS.items()
    }
    missing = [split for split in ("train", "test") if not names_by_split[split]]
    if missing:
        raise DataError(
            f"{place} has the splits {', '.join(sorted(names))}, but no {' and no '.join(missing)}.",
            allowed="train and test, optionally validation (or val, valid, dev); or one set without splits",
            next_step="if it has only train and validation, rename validation to test; a validation split is then "
            "held out of train",
        )
    for split, matching in names_by_split.items():
        if len(matching) > 1:
            raise DataError(
                f"{place} has more than one {'validation' if split == 'val' else split} split: {', '.join(matching)}.",
                allowed="one of them",
                next_step="rename or remove the others",
            )
    splits = {split: matching[0] for split, matching in names_by_split.items() if matching}
    if unused := sorted(set(names) - set(splits.values())):
        warnings.warn(f"Skipped in {place}: {', '.join(unused)}, which are not splits.", stacklevel=2)
    return splits


def left_out(splits: Mapping[str, Named], without: Collection[str], place: Path) -> dict[str, frozenset[int]]:
    """Return the positions of the examples that ``data.exclude`` names, by split.

    Args:
        splits: the examples of the data set, one at least.
        without: names of examples.
        place: location of the data set, for the error.

    Raises:
        RecipeError: if a name belongs to no example.
    """
    if not without:
        return {}
    excluded = set(without)
    positions_by_split = {
        split: {name: position for position in range(len(samples)) if (name := samples.name(position)) in excluded}
        for split, samples in splits.items()
    }
    if unknown := sorted(excluded.difference(*positions_by_split.values())):
        example = next(iter(splits.values())).name(0)
        raise RecipeError(
            f"data.exclude names examples that are not in {place}: {', '.join(unknown)}.",
            allowed=f"names such as '{example}'",
            next_step="correct the names",
        )
    return {split: frozenset(positions.values()) for split, positions in positions_by_split.items()}
