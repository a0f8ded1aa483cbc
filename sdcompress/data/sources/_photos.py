"""What the sources of a user's own images share: preprocessing, the names of splits, numbered labels."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from sdcompress.data.files import FileSamples
from sdcompress.data.images import preprocessing
from sdcompress.errors import DataError, RecipeError
from sdcompress.modalities.image import Image
from sdcompress.schema import recipe
from sdcompress.tasks import Array

__all__ = [
    "check_every_class",
    "has_splits",
    "left_out",
    "photos",
    "published_splits",
]

_SIDE = 224
_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


def left_out(splits: Mapping[str, FileSamples], without: Collection[str], place: Path) -> dict[str, frozenset[int]]:
    """The positions of the examples that ``data.without`` names, in each split.

    Args:
        splits: the samples of the data set.
        without: names of examples.
        place: where the set lies, for the error.

    Raises:
        RecipeError: if a name is that of no example.
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
            f"data.without names examples that are not in {place}: {', '.join(unknown)}.",
            allowed=f"names such as '{example}'",
            next_step="correct the names",
        )
    return {split: frozenset(positions.values()) for split, positions in positions_by_split.items()}


def photos(spec: recipe.Data) -> Image:
    """RGB; the shorter side is resized to ``image_size`` / 0.875, the centre cut out: ImageNet's usual 224 of 256."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return Image.of(preprocessing(spec, side=_SIDE, mean=mean, std=std, crop=0.875))


def has_splits(names: Collection[str]) -> bool:
    """Whether the names of folders are those of splits, and not those of classes."""
    folded = {name.casefold() for name in names}
    # a class may well be called 'training'
    return "train" in folded or (not folded.isdisjoint(_SPLITS["train"]) and not folded.isdisjoint(_SPLITS["test"]))


def published_splits(names: Collection[str], place: Path) -> dict[str, str]:
    """Which of a set's own names stands for which split; letters may be small or capital.

    Args:
        names: what the set calls its splits; of others it is said that they are passed over.
        place: where it lies, for messages.

    Returns:
        For ``train``, ``test`` and, where there is one, ``val`` the set's own name.

    Raises:
        DataError: if train or test is missing, or there are two of one split.
    """
    names_by_split = {
        split: sorted(name for name in names if name.casefold() in aliases) for split, aliases in _SPLITS.items()
    }
    missing = [split for split in ("train", "test") if not names_by_split[split]]
    if missing:
        raise DataError(
            f"{place} has the splits {', '.join(sorted(names))}, but no {' and no '.join(missing)}.",
            allowed="train and test, optionally validation (or val, valid, dev); or one set without splits, which is "
            "split",
            next_step="where it is published with train and validation alone, rename validation to test: "
            "a validation split is held out of train",
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
        warnings.warn(f"{place}: passed over are {', '.join(unused)}, which are no splits.", stacklevel=2)
    return splits


def check_every_class(labels: Array, classes: int, place: Path, named_by: str) -> None:
    """Refuse training labels that leave out a class: the numbers then mean something else than the user thinks.

    Args:
        labels: of the training images, int64 [N], in 0..K-1.
        classes: K.
        place: where the set lies, for the error.
        named_by: what says that there are K classes.

    Raises:
        DataError: if a class has no training image.
    """
    present = np.unique(labels)
    if len(present) == classes:
        return
    gaps = np.flatnonzero(present != np.arange(len(present)))
    first = int(gaps[0]) if len(gaps) else len(present)
    raise DataError(
        f"No training image of {place} has the label {first}; {classes - len(present)} of the {classes} labels that "
        f"{named_by} do not occur.",
        allowed=f"every label from 0 to {classes - 1}, with gaps closed",
        next_step="number the labels from 0 without gaps, and name exactly these classes",
    )
