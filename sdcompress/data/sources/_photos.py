"""Shared by sources of user images: preprocessing, decoding, names of splits, checks of labels."""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from sdcompress.data.samples import Images, Labels, without_setting
from sdcompress.data.source import preprocessing
from sdcompress.errors import DataError, InputError, RecipeError
from sdcompress.modalities._geometry import geometry
from sdcompress.modalities._pictures import FORMATS, check_picture, open_picture
from sdcompress.schema import recipe
from sdcompress.schema.manifest import Preprocess

__all__ = [
    "DecodedSamples",
    "FolderSamples",
    "check_every_class",
    "has_splits",
    "left_out",
    "photo_preprocessing",
    "published_splits",
]

_SIDE = 224
_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


class DecodedSamples(ABC):
    """Samples that are decoded on access, in the thread of the caller.

    A subclass sets ``_labels`` and ``_preprocess``.
    """

    _labels: Labels
    _preprocess: Preprocess

    @property
    def targets(self) -> Labels:
        """Labels, int64 [N]."""
        return self._labels

    @property
    def in_memory(self) -> bool:
        """False: images are decoded on access."""
        return False

    def __len__(self) -> int:
        return len(self._labels)

    def originals(self, indices: Labels) -> list[Images]:
        """Return images at their original size, uint8 [h, w, C] each."""
        unsized_samples = copy.copy(self)
        unsized = self._preprocess.model_copy(update={"resize": None, "crop": None})
        unsized_samples._preprocess = unsized  # noqa: SLF001 - a copy of this object
        return [unsized_samples._image(int(index)) for index in indices]  # noqa: SLF001

    def examples(self, indices: Labels) -> Images:
        """Return images, uint8 [b, H, W, C]."""
        return np.stack([self._image(int(index)) for index in indices])

    @abstractmethod
    def name(self, position: int) -> str:
        """Return the name of an image for ``data.without``; unique in the data set."""

    @abstractmethod
    def file(self, position: int) -> Path | bytes:
        """Return the path of the file of an image, or its bytes.

        Raises:
            DataError: if the bytes cannot be read.
        """

    def problem(self, position: int) -> str | None:
        """Return why an image is unusable, judged by the begin and end of its file; None if nothing is wrong there."""
        try:
            check_picture(self.file(position))
        except (InputError, DataError) as error:
            return error.found
        return None

    def _image(self, position: int) -> Images:
        """One image, uint8 [H, W, C]."""
        try:
            with open_picture(self.file(position)) as image:
                return geometry(image, self._preprocess)
        except InputError as error:
            name = self.name(position)
            raise DataError(
                f"The image {name} cannot be used: {error.found}",
                allowed=f"{', '.join(FORMATS)} of 8 bits a channel, or grey of 16",
                next_step=f"repair it, or leave it out: {without_setting([name])}",
            ) from error


class FolderSamples(DecodedSamples):
    """The image files of a split, listed by class.

    Args:
        root: the folder to which names are relative.
        classes: the files of each class, possibly none.
        preprocess: of the data set.
    """

    def __init__(self, root: Path, classes: Sequence[Sequence[Path]], preprocess: Preprocess) -> None:
        self._root, self._preprocess = root, preprocess
        self._paths = [path for paths in classes for path in paths]
        self._labels = np.repeat(np.arange(len(classes)), [len(paths) for paths in classes]).astype(np.int64)

    def name(self, position: int) -> str:
        """Return the path relative to data.dir."""
        return self._paths[position].relative_to(self._root).as_posix()

    def file(self, position: int) -> Path:
        """Return the path."""
        return self._paths[position]

    def listing(self, excluded: Collection[int]) -> list[str]:
        """Return a line with name and size of each file, without the size for excluded ones."""
        return [
            f"{self.name(position)}\t{'left out' if position in excluded else path.stat().st_size}"
            for position, path in enumerate(self._paths)
        ]


def left_out(splits: Mapping[str, DecodedSamples], without: Collection[str], place: Path) -> dict[str, frozenset[int]]:
    """Return the positions of the images that ``data.without`` names, by split.

    Args:
        splits: the samples of the data set.
        without: names of images.
        place: location of the data set, for the error.

    Raises:
        RecipeError: if a name belongs to no image.
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
            f"data.without names images that are not in {place}: {', '.join(unknown)}.",
            allowed=f"names such as '{example}'",
            next_step="correct the names",
        )
    return {split: frozenset(positions.values()) for split, positions in positions_by_split.items()}


def photo_preprocessing(spec: recipe.Data) -> Preprocess:
    """Return ImageNet preprocessing: RGB, shorter side resized to ``image_size`` / 0.875, then a centre crop."""
    return preprocessing(spec, side=_SIDE, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop=0.875)


def has_splits(names: Collection[str]) -> bool:
    """Whether folder names are names of splits, not of classes."""
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


def check_every_class(labels: Labels, classes: int, place: Path, named_by: str) -> None:
    """Refuse training labels without samples of some class: the labels are then probably misnumbered.

    Args:
        labels: of the training images, int64 [N], in 0..K-1.
        classes: K.
        place: location of the data set, for the error.
        named_by: what gives the number of classes, for the error.

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
