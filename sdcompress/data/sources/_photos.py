"""Shared by sources of user images: preprocessing, checks of labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sdcompress.data.image_arrays import Preprocess
from sdcompress.errors import DataError
from sdcompress.modalities.image import Image
from sdcompress.tasks import Array

__all__ = ["check_every_class", "photos"]

_SIDE = 224


def photos() -> Image:
    """Return the modality of ImageNet: RGB, the shorter side resized to 256, then the centre of 224 x 224."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return Image.of(Preprocess.square(_SIDE, mean=mean, std=std, crop=0.875))


def check_every_class(labels: Array, classes: int, place: Path, named_by: str) -> None:
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
