"""Images with masks: both are files, and what the modality does to an image is done to its mask."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sdcompress.data.files import FileSamples
from sdcompress.data.samples import without_setting
from sdcompress.data.source import Source
from sdcompress.data.sources._listing import Skipped, files_below
from sdcompress.data.sources._splits import left_out
from sdcompress.errors import DataError, InputError
from sdcompress.modalities import Modality, as_image
from sdcompress.modalities._image_files import BROKEN, open_picture
from sdcompress.modalities._image_preprocess import geometry
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.modalities.image import Image

__all__ = ["VOID", "MaskCoding", "Pair", "images_in", "mask_source", "pairs_of"]

VOID = 255  # what sources give for pixels of no class: the default of the task's ignore_index
Mask = npt.NDArray[np.uint8]
_NAMED = 3  # files that a message names


class Pair(NamedTuple):
    """An image's file and its mask's."""

    image: Path
    mask: Path


def images_in(folder: Path) -> list[Path]:
    """Return the images below a folder, sorted by path; a warning says what is passed over.

    Raises:
        DataError: if there is none.
    """
    skipped = Skipped(Image.suffixes)
    files = files_below(folder, skipped) if folder.is_dir() else []
    if not files:
        raise DataError(
            f"{folder} holds no image.",
            allowed=f"files that end in {', '.join(sorted(Image.suffixes))}",
            next_step="copy the images there, or correct data.dir",
        )
    skipped.warn(folder)
    return files


def pairs_of(images: Sequence[Path], folder: Path, masks: Path, exclude: Collection[Path] = ()) -> list[Pair]:
    """Return the images with their masks, which have the same path below their folder and the ending .png.

    Args:
        images: files below ``folder``.
        folder: of the images.
        masks: folder of the masks.
        exclude: images that need no mask.

    Raises:
        DataError: if a mask is missing.
    """
    pairs = [Pair(image, masks / image.relative_to(folder).with_suffix(".png")) for image in images]
    missing = [pair for pair in pairs if pair.image not in exclude and not pair.mask.is_file()]
    if missing:
        named = "; ".join(f"{pair.image} needs {pair.mask}" for pair in missing[:_NAMED])
        raise DataError(
            f"{len(missing)} of {len(pairs)} images have no mask: {named}"
            + (", ..." if len(missing) > _NAMED else "."),
            allowed="a mask for each image, with the image's name and the ending .png",
            next_step="copy the masks there, or remove the images",
        )
    return pairs


@dataclass(frozen=True)
class MaskCoding:
    """How the pixels of mask files stand for classes.

    Attributes:
        classes: K names.
        values: value of a pixel -> class, or ``VOID``; grey files, and files with a palette by the palette's index.
        colours: colour of a pixel, R G B -> the same; empty: masks have no colours but a palette's.
    """

    classes: tuple[str, ...]
    values: dict[int, int] = field(default_factory=dict)
    colours: dict[tuple[int, int, int], int] = field(default_factory=dict)

    def decode(self, pixels: npt.NDArray[np.generic]) -> Mask:
        """Return the classes of a mask's pixels, uint8 [h, w].

        Args:
            pixels: integers [h, w], or uint8 [h, w, 3 or 4] where there are colours.

        Raises:
            InputError: names the first value or colour that stands for nothing.
        """
        if self.colours and pixels.ndim == 3 and pixels.shape[2] in {3, 4} and pixels.dtype == np.uint8:
            channels = pixels[:, :, :3].astype(np.int64) @ np.array([65536, 256, 1])
            table = {(r << 16) + (g << 8) + b: k for (r, g, b), k in self.colours.items()}
            return _looked_up(channels, table, lambda v: f"the colour {v >> 16} {v >> 8 & 255} {v & 255}")
        if self.values and pixels.ndim == 2 and pixels.dtype.kind in "bui":
            return _looked_up(pixels, self.values, lambda v: f"the value {v}")
        form = "colours R G B" if self.colours else "one channel of integers, or a palette"
        raise InputError(
            f"The mask is {pixels.dtype} of shape {list(pixels.shape)}.",
            allowed=f"{form}, as the list of classes has them",
            next_step="convert the mask, or correct the list of classes",
        )


def _looked_up(codes: npt.NDArray[np.generic], table: Mapping[int, int], named: Callable[[int], str]) -> Mask:
    """Return the class of each code; InputError names the first that has none."""
    classes, known = np.full(codes.shape, VOID, np.uint8), np.zeros(codes.shape, bool)
    for code, number in table.items():
        same = codes == code
        np.putmask(classes, same, number)
        known |= same
    if not known.all():
        raise InputError(
            f"The mask holds {named(int(codes[~known][0]))}, which is no class.",
            allowed="what the list of classes names",
            next_step="correct the mask, or add the class to the list of classes (void, if it is none)",
        )
    return classes


class MaskSamples(FileSamples):
    """The samples of a split; masks are read when targets are first asked for, images one by one.

    Args:
        root: the folder that names are relative to.
        pairs: files.
        coding: of the masks.
        modality: of the images.
        excluded: positions whose files are not read; their masks are all of the first class.
    """

    def __init__(
        self,
        root: Path,
        pairs: Sequence[Pair],
        coding: MaskCoding,
        modality: Modality,
        excluded: Collection[int] = (),
    ) -> None:
        self._root, self._pairs, self._coding, self._modality = root, pairs, coding, modality
        self._excluded = frozenset(excluded)

    def __len__(self) -> int:
        return len(self._pairs)

    @cached_property
    def _targets(self) -> Mask:  # type: ignore[override]
        return np.stack([self._mask(position) for position in range(len(self))])

    def prepared_by(self, modality: Modality) -> MaskSamples:
        """Return the same samples at the size of another modality, masks included."""
        return MaskSamples(self._root, self._pairs, self._coding, modality, self._excluded)

    def without(self, excluded: Collection[int]) -> MaskSamples:
        """Return the same samples, of which some are not read."""
        return MaskSamples(self._root, self._pairs, self._coding, self._modality, excluded)

    def name(self, position: int) -> str:
        """Return the image's path below data.dir."""
        return self._pairs[position].image.relative_to(self._root).as_posix()

    def file(self, position: int) -> Path:
        """Return the image's path."""
        return self._pairs[position].image

    def listing(self) -> list[str]:
        """Return the name and the size of each image; of those that are left out the size does not matter."""
        return [
            f"{self.name(at)}\t{'left out' if at in self._excluded else pair.image.stat().st_size}"
            for at, pair in enumerate(self._pairs)
        ]

    def _mask(self, position: int) -> Mask:
        """Return the classes of a mask at the size of the network, uint8 [H, W]."""
        image = as_image(self._modality)
        if position in self._excluded:
            return np.zeros(image.shape[1:], np.uint8)
        pair = self._pairs[position]
        try:
            mask = self._read(pair)
            own = image.preprocess
            spec = Preprocess(
                channels=1, resize=own.resize, crop=own.crop, interpolation="nearest", mean=(0.0,), std=(1.0,)
            )
            sized = geometry(mask, spec)[:, :, 0]
            if (sized == VOID).all():
                raise InputError(
                    "It is void everywhere: there is nothing to learn or to measure.",
                    allowed="masks with a pixel of a class, also at the size of the network",
                    next_step="label it",
                )
        except (InputError, *BROKEN) as error:
            found = error.problem if isinstance(error, InputError) else str(error)
            raise DataError(
                f"The mask {pair.mask} cannot be used: {found}",
                allowed=error.allowed if isinstance(error, InputError) else "whole image files",
                next_step=f"repair it, or go on without the image: {without_setting([self.name(position)])}",
            ) from error
        return sized

    def _read(self, pair: Pair) -> Mask:
        with open_picture(pair.mask) as opened:
            mask = self._coding.decode(np.asarray(opened))  # of a palette the indices
        with open_picture(pair.image) as opened:
            width, height = opened.size
        if mask.shape != (height, width):
            raise InputError(
                f"It has {mask.shape[0]}x{mask.shape[1]} pixels (height x width), its image {height}x{width}.",
                allowed="a mask of the image's size",
                next_step="make it anew",
            )
        return mask


def mask_source(
    root: Path,
    pairs: Mapping[str, Sequence[Pair]],
    coding: MaskCoding,
    modality: Image,
    exclude: Collection[str],
) -> Source:
    """Return a source of images with masks.

    Args:
        root: the folder that names are relative to.
        pairs: the files of ``train`` and, where there are such splits, of ``val`` and ``test``.
        coding: of the masks.
        modality: of the images, as far as the data set says.
        exclude: names of images to leave out.

    Raises:
        RecipeError: if a name belongs to no image.
    """
    named = {split: MaskSamples(root, listed, coding, modality) for split, listed in pairs.items()}
    excluded = left_out(named, exclude, root)
    splits = {split: samples.without(excluded.get(split, ())) for split, samples in named.items()}
    content, names = hashlib.sha256(), hashlib.sha256()
    for samples in splits.values():
        lines = samples.listing()
        content.update(("\n".join(lines) + "\0").encode(errors="surrogateescape"))
        names.update(("\n".join(line.partition("\t")[0] for line in lines) + "\0").encode(errors="surrogateescape"))
    return Source(
        outputs=coding.classes,
        modality=modality,
        digest=content.hexdigest(),
        names=names.hexdigest(),
        left_out=excluded,
        train=splits["train"],
        val=splits.get("val"),
        test=splits.get("test"),
        task="segmentation",
    )
