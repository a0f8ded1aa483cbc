"""CamVid: which of 11 classes are in squares of 120 pixels of road scenes, multi-label (Brostow et al. 2009).

The files lie as in SegNet's repository, 367 + 101 + 233 images of 480x360 and their masks:

    data.dir/CamVid/train/*.png        also without CamVid/ above; val/ and test/ likewise
    data.dir/CamVid/trainannot/*.png   masks by the images' names, 0..10 for the classes, 11 for void

Each image is cut into squares, 4 by 3, from its upper left corner. A square has the labels of the classes that cover at
least 0.5 % of it; void is nothing. Squares of an image, and images of a drive, resemble each other: they are fewer
independent samples than their number says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sdcompress.data.image_arrays import Images, Preprocess, image_source
from sdcompress.data.source import Source, content_digest, data_folder
from sdcompress.data.sources._camvid import CLASSES, MEAN, STD, root_of
from sdcompress.data.sources._masks import images_in
from sdcompress.errors import DataError, InputError
from sdcompress.modalities._image_files import BROKEN, open_picture
from sdcompress.modalities.image import Image
from sdcompress.schema import recipe

__all__ = ["camvid_labels"]

_SIDE = 120
_SHARE = 0.005  # of a square's pixels; less is mostly the edge of something beside it
_Masks = npt.NDArray[np.uint8]


def camvid_labels(spec: recipe.Data) -> Source:
    """Return the squares, at 120 pixels, with mean and std of the training images.

    Raises:
        DataError: if a folder or a mask is missing, or an image or a mask cannot be used.
    """
    root = root_of(data_folder(spec), "camvid_labels")
    preprocess = Preprocess.square(_SIDE, mean=MEAN, std=STD)
    train, val, test = (_split(root, split, Image.of(preprocess)) for split in ("train", "val", "test"))
    source = image_source(CLASSES, preprocess, train, test, task="multilabel")
    held_out = image_source(CLASSES, preprocess, val, task="multilabel")
    return replace(source, val=held_out.train, digest=content_digest(train, val, test))


def _split(root: Path, split: str, modality: Image) -> tuple[Images, _Masks]:
    """Return the squares of a split, uint8 [N, 120, 120, 3], and their labels, uint8 [N, 11]."""
    squares, labels = [], []
    for file in images_in(root / split):
        image, mask = _pair(file, root / f"{split}annot" / f"{file.stem}.png", modality)
        for top, left in _corners(mask.shape[0], mask.shape[1]):
            rows, columns = slice(top, top + _SIDE), slice(left, left + _SIDE)
            squares.append(image[rows, columns])
            labels.append(_labels(mask[rows, columns]))
    return np.stack(squares), np.stack(labels)


def _pair(image_file: Path, mask_file: Path, modality: Image) -> tuple[Images, _Masks]:
    """Return an image, uint8 [h, w, 3], and its mask, uint8 [h, w]."""
    if not mask_file.is_file():
        raise DataError(
            f"The image {image_file} has no mask: there is no file {mask_file}.",
            allowed="a mask for each image, with the image's name and the ending .png",
            next_step="copy the masks of CamVid there, or remove the image",
        )
    try:
        image = np.asarray(modality.decode(image_file))
        with open_picture(mask_file) as opened:
            mask = np.asarray(opened)
    except (InputError, *BROKEN) as error:
        raise DataError(
            f"{image_file} or its mask {mask_file} cannot be read: {getattr(error, 'problem', error)}",
            allowed="whole image files",
            next_step="copy them again",
        ) from error
    if mask.dtype != np.uint8 or mask.shape != image.shape[:2] or min(mask.shape) < _SIDE or mask.max() > len(CLASSES):
        raise DataError(
            f"The mask {mask_file} is {mask.dtype} of shape {list(mask.shape)} with values up to {mask.max()}, its "
            f"image {image.shape[0]}x{image.shape[1]} (height x width).",
            allowed=f"one channel of 8 bits, of the image's size, at least {_SIDE}x{_SIDE}, with values 0 to "
            f"{len(CLASSES)}",
            next_step="copy the mask again, or remove the image",
        )
    return image, mask


def _corners(height: int, width: int) -> Iterator[tuple[int, int]]:
    for top in range(0, height - _SIDE + 1, _SIDE):
        for left in range(0, width - _SIDE + 1, _SIDE):
            yield top, left


def _labels(mask: _Masks) -> _Masks:
    counts = np.bincount(mask.reshape(-1), minlength=len(CLASSES) + 1)[: len(CLASSES)]
    return (counts >= _SHARE * mask.size).astype(np.uint8)
