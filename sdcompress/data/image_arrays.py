"""Sources of images that lie in memory at their own size."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from sdcompress.data.samples import ArraySamples, Indices
from sdcompress.data.source import Source, content_digest
from sdcompress.errors import DataError
from sdcompress.modalities import Modality, as_image
from sdcompress.modalities._image_preprocess import geometry
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.modalities.image import Image
from sdcompress.tasks import Array

__all__ = ["ImageSamples", "Images", "Preprocess", "image_source"]

Images = npt.NDArray[np.uint8]
_IN_MEMORY = 2**30  # bytes; a larger resized set is resized batch by batch


def image_source(
    outputs: tuple[str, ...],
    preprocess: Preprocess,
    train: tuple[Images, Array],
    test: tuple[Images, Array] | None = None,
    *,
    task: str = "classification",
) -> Source:
    """Return a source of images that lie in memory at their own size.

    Args:
        outputs: names of what a network's outputs stand for, such as those of K classes.
        preprocess: the data set's own; a recipe may change it.
        train: images uint8 [N, H, W, C], C 1 or 3, and targets [N, ...].
        test: the same, if the set has a test split.
        task: of the targets.

    Raises:
        DataError: if the images have another dtype or shape.
    """
    for images, _ in filter(None, (train, test)):
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in {1, 3}:
            raise DataError(
                f"The images are {images.dtype} of shape {list(images.shape)}.",
                allowed="uint8 of shape [N, H, W, 1] or [N, H, W, 3]",
                next_step="convert the array before making a source of it",
            )
    return Source(
        outputs=outputs,
        modality=Image.of(preprocess, train[0].shape[1:3]),
        train=ImageSamples(*train, preprocess),
        test=None if test is None else ImageSamples(*test, preprocess),
        digest=content_digest(train, test),
        task=task,
    )


class ImageSamples:
    """Images in memory at their own size, brought to the network's.

    Where all of them fit into memory once more they are resized at the first request, else batch by batch.

    Args:
        images: uint8 [N, H, W, C].
        targets: [N, ...].
        preprocess: its geometry is applied.
    """

    def __init__(self, images: Images, targets: Array, preprocess: Preprocess) -> None:
        self._raw, self._images, self._preprocess = ArraySamples(images, targets), images, preprocess
        probe = _probe(images.shape[1:])
        sized = geometry(probe, preprocess) if len(images) else probe
        self._unchanged = np.array_equal(sized, probe)
        self._in_memory = self._unchanged or sized.nbytes * len(images) <= _IN_MEMORY

    def prepared_by(self, modality: Modality) -> ImageSamples:
        """Return the same images, brought to the size of another modality."""
        preprocess = as_image(modality).preprocess
        return self if preprocess == self._preprocess else ImageSamples(self._images, self.targets, preprocess)

    @property
    def targets(self) -> Array:
        """Return all targets, [N, ...]."""
        return self._raw.targets

    @property
    def in_memory(self) -> bool:
        """Return whether all images of the network's size lie in memory."""
        return self._in_memory

    def __len__(self) -> int:
        return len(self._raw)

    def examples(self, indices: Indices) -> Images:
        """Return the images at these positions, uint8 [b, H, W, C] of the network's size."""
        return self._resized.examples(indices) if self._in_memory else self._resize(self._raw.examples(indices))

    def originals(self, indices: Indices) -> list[Images] | None:
        """Return the images at these positions at their own size; None where that is the network's."""
        return None if self._unchanged else list(self._raw.examples(indices))

    @cached_property
    def _resized(self) -> ArraySamples:
        if self._unchanged:
            return self._raw
        return ArraySamples(self._resize(self._images), self.targets)

    def _resize(self, images: Images) -> Images:
        return np.stack([geometry(image, self._preprocess) for image in images])


def _probe(shape: tuple[int, ...]) -> Images:
    """An image of noise: one of a single colour would stay what it is where others are resized and cut."""
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
