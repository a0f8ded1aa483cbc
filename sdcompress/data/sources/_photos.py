"""What the sources of a user's own images share: preprocessing, decoding, the names of splits, numbered labels."""

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
    """Samples of which each is decoded when it is asked for, in whatever thread asks.

    A subclass sets ``_labels`` and ``_preprocess``.
    """

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
        unsized_samples = copy.copy(self)
        unsized = self._preprocess.model_copy(update={"resize": None, "crop": None})
        unsized_samples._preprocess = unsized  # noqa: SLF001 - of its own class
        return [unsized_samples._image(int(index)) for index in indices]  # noqa: SLF001

    def images(self, indices: Labels) -> Images:
        """The images at these positions, [b, H, W, C]."""
        return np.stack([self._image(int(index)) for index in indices])

    @abstractmethod
    def name(self, position: int) -> str:
        """What ``data.without`` calls an image; unique in the data set."""

    @abstractmethod
    def file(self, position: int) -> Path | bytes:
        """The path of an image's file, or its bytes.

        Raises:
            DataError: if they cannot be had.
        """

    def problem(self, position: int) -> str | None:
        """Why an image cannot be used, as far as its header and its end tell; None where they tell nothing."""
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
                next_step=f"repair it, or go on without it: {without_setting([name])}",
            ) from error


class FolderSamples(DecodedSamples):
    """The images of a split, a list of files for each class.

    Args:
        root: the folder that names are relative to.
        classes: the files of each class; a class may have none.
        preprocess: of the data set.
    """

    def __init__(self, root: Path, classes: Sequence[Sequence[Path]], preprocess: Preprocess) -> None:
        self._root, self._preprocess = root, preprocess
        self._paths = [path for paths in classes for path in paths]
        self._labels = np.repeat(np.arange(len(classes)), [len(paths) for paths in classes]).astype(np.int64)

    def name(self, position: int) -> str:
        """The path below data.dir."""
        return self._paths[position].relative_to(self._root).as_posix()

    def file(self, position: int) -> Path:
        """The path."""
        return self._paths[position]

    def listing(self, excluded: Collection[int]) -> list[str]:
        """The name and the size of each file; of those that are left out the size does not matter."""
        return [
            f"{self.name(position)}\t{'left out' if position in excluded else path.stat().st_size}"
            for position, path in enumerate(self._paths)
        ]


def left_out(splits: Mapping[str, DecodedSamples], without: Collection[str], place: Path) -> dict[str, frozenset[int]]:
    """The positions of the images that ``data.without`` names, in each split.

    Args:
        splits: the samples of the data set.
        without: names of images.
        place: where the set lies, for the error.

    Raises:
        RecipeError: if a name is that of no image.
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
    """RGB; the shorter side is resized to ``image_size`` / 0.875, the centre cut out: ImageNet's usual 224 of 256."""
    return preprocessing(spec, side=_SIDE, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop=0.875)


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
