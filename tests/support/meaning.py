"""What a manifest says of the meaning of a network's inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.modalities.image import Image
from sdcompress.tasks.classification import Classification

__all__ = ["image_modality", "meaning"]


def meaning(classes: Sequence[str], preprocess: Preprocess, shape: tuple[int, int, int]) -> dict[str, Any]:
    """The fields of a classifier of images [C, H, W]."""
    task, modality = Classification(tuple(classes)), Image(preprocess, shape)
    return {"task": task.record, "outputs": task.outputs, "modality": modality.record, "inputs": modality.tensors}


def image_modality(shape: tuple[int, int, int]) -> Image:
    """Images [C, H, W] that become float32 of about -2 to 2."""
    channels = shape[0]
    return Image(Preprocess(channels=channels, mean=(0.5,) * channels, std=(0.25,) * channels), shape)
