"""What the sources of a user's own images share: preprocessing, decoding, the names of splits, numbered labels."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sdcompress.data.pictures import FORMATS, open_picture
from sdcompress.data.preprocess import geometry
from sdcompress.data.samples import Images, Labels
from sdcompress.data.source import preprocessing
from sdcompress.errors import DataError, InputError
from sdcompress.schema import recipe
from sdcompress.schema.manifest import Preprocess

__all__ = [
    "Decoded",
    "check_every_class",
    "decode",
    "has_splits",
    "photo_preprocessing",
    "published_splits",
]

_SIDE = 224
_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


class Decoded(ABC):
    """Samples of which each is decoded when it is asked for, in whatever thread asks."""

    _labels: Labels

    @property
    def labels(self) -> Labels:
        """All labels, [N]."""
        return self._labels

    @property
    def in_memory(self) -> bool:
        """No."""
        return False

    def __len__(self) -> int:
        return len(self._labels)

    def images(self, indices: Labels) -> Images:
        """The images at these positions, [b, H, W, C]."""
        return np.stack([self._image(int(index)) for index in indices])

    @abstractmethod
    def _image(self, position: int) -> Images:
        """One image, uint8 [H, W, C]."""


def photo_preprocessing(spec: recipe.Data) -> Preprocess:
    """RGB; the shorter side is resized to ``image_size`` / 0.875, the centre cut out: ImageNet's usual 224 of 256."""
    return preprocessing(spec, side=_SIDE, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop=0.875)


def decode(file: Path | BinaryIO, name: str, preprocess: Preprocess, *, repair: str) -> Images:
    """One image, past the geometry of its preprocessing.

    Args:
        file: what Pillow reads.
        name: of the image, for the error.
        preprocess: what to do with it.
        repair: what the user can do about a broken one.

    Returns:
        uint8 [H, W, C].

    Raises:
        DataError: if it cannot be decoded, has more than 16 bits a channel, or is too small to crop.
    """
    try:
        with open_picture(file) as image:
            return geometry(image, preprocess)
    except InputError as error:
        raise DataError(
            f"The image {name} cannot be used: {error.found}",
            allowed=f"{', '.join(FORMATS)} of 8 bits a channel, or grey of 16",
            next_step=repair,
        ) from error


def has_splits(names: Collection[str]) -> bool:
    """Whether the names of folders are those of splits, and not those of classes."""
    known = {name.casefold() for name in names}
    # a class may well be called 'training'
    return "train" in known or (not known.isdisjoint(_SPLITS["train"]) and not known.isdisjoint(_SPLITS["test"]))


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
    found = {split: sorted(name for name in names if name.casefold() in known) for split, known in _SPLITS.items()}
    missing = [split for split in ("train", "test") if not found[split]]
    if missing:
        raise DataError(
            f"{place} has the splits {', '.join(sorted(names))}, but no {' and no '.join(missing)}.",
            allowed="train and test, optionally validation (or val, valid, dev); or one set without splits, which is "
            "split",
            next_step="where it is published with train and validation alone, rename validation to test: "
            "a validation split is held out of train",
        )
    for split, same in found.items():
        if len(same) > 1:
            raise DataError(
                f"{place} has more than one {'validation' if split == 'val' else split} split: {', '.join(same)}.",
                allowed="one of them",
                next_step="rename or remove the others",
            )
    splits = {split: same[0] for split, same in found.items() if same}
    if others := sorted(set(names) - set(splits.values())):
        warnings.warn(f"{place}: passed over are {', '.join(others)}, which are no splits.", stacklevel=2)
    return splits


def check_every_class(labels: Labels, classes: int, place: Path, named_by: str) -> None:
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
