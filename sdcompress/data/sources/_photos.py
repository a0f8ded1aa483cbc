"""What the sources of a user's own images share: preprocessing, decoding, the names of splits, numbered labels."""

from __future__ import annotations

import copy
import struct
from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from sdcompress.data.preprocess import geometry
from sdcompress.data.samples import Images, Labels
from sdcompress.errors import DataError, InputError
from sdcompress.schema import recipe
from sdcompress.schema.manifest import Preprocess

__all__ = [
    "SUFFIXES",
    "Decoded",
    "check_every_class",
    "decode",
    "picture_files",
    "preprocessing",
    "published_splits",
]

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_SIDE = 224
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


class Decoded(ABC):
    """Samples of which each is decoded when it is asked for, in whatever thread asks."""

    _labels: Labels
    _preprocess: Preprocess

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

    def originals(self, indices: Labels) -> list[Images]:
        """The images at these positions at their own size, [h, w, C] each."""
        whole = copy.copy(self)
        unsized = self._preprocess.model_copy(update={"resize": None, "crop": None})
        whole._preprocess = unsized  # noqa: SLF001 - of its own class
        return [whole._image(int(index)) for index in indices]  # noqa: SLF001

    def images(self, indices: Labels) -> Images:
        """The images at these positions, [b, H, W, C]."""
        return np.stack([self._image(int(index)) for index in indices])

    @abstractmethod
    def _image(self, position: int) -> Images:
        """One image, uint8 [H, W, C]."""


def preprocessing(spec: recipe.Data) -> Preprocess:
    """RGB; the shorter side is resized to ``image_size`` / 0.875, the centre cut out: ImageNet's usual 224 of 256."""
    side = spec.image_size or _SIDE
    return Preprocess(
        channels=3,
        resize=round(side / 0.875),
        crop=(side, side),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


def picture_files(folder: Path) -> list[Path]:
    """The image files below a folder, by their suffixes, in the order of their paths."""
    found = [
        path
        for path in folder.rglob("*")
        # macOS leaves '._name.jpg' beside 'name.jpg', which is no image
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


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
        DataError: if it cannot be decoded, has more than 8 bits a channel, or is too small to crop.
    """
    try:
        with Image.open(file) as image:
            return geometry(image, preprocess)
    except (*_BROKEN, InputError) as error:
        reason = error.found if isinstance(error, InputError) else str(error)
        raise DataError(
            f"The image {name} cannot be used: {reason}",
            allowed="an image of 8 bits a channel that Pillow can decode",
            next_step=repair,
        ) from error


def published_splits(names: Collection[str], place: Path) -> dict[str, str]:
    """Which of a set's own names stands for which split.

    Args:
        names: what the set calls its splits; others are passed over.
        place: where it lies, for the error.

    Returns:
        For ``train``, ``test`` and, where there is one, ``val`` the set's own name.

    Raises:
        DataError: if train or test is missing, or there are two validation splits.
    """
    found = {split: [name for name in theirs if name in names] for split, theirs in _SPLITS.items()}
    missing = [split for split in ("train", "test") if not found[split]]
    if missing:
        raise DataError(
            f"{place} has the splits {', '.join(sorted(names))}, but no {' and no '.join(missing)}.",
            allowed="train and test, optionally validation (or val, valid); or one set without splits, which is split",
            next_step="where it is published with train and validation alone, rename validation to test: "
            "a validation split is held out of train",
        )
    if len(found["val"]) > 1:
        raise DataError(
            f"{place} has more than one validation split: {', '.join(found['val'])}.",
            allowed="one of them",
            next_step="rename or remove the others",
        )
    return {split: theirs[0] for split, theirs in found.items() if theirs}


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
