"""Sources of images that lie in memory at their own size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sdcompress.data.samples import ArraySamples, Indices, Samples
from sdcompress.data.source import Source, content_digest
from sdcompress.errors import DataError, RecipeError
from sdcompress.modalities._geometry import geometry
from sdcompress.modalities._preprocess import Preprocess
from sdcompress.modalities.image import Image
from sdcompress.schema import recipe
from sdcompress.tasks import Array

__all__ = ["Images", "image_source", "preprocessing"]

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
        preprocess: its geometry is applied here.
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
        train=_fitted(*train, preprocess),
        test=_fitted(*test, preprocess) if test is not None else None,
        digest=content_digest(train, test),
        task=task,
    )


def preprocessing(
    spec: recipe.Data,
    *,
    side: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    crop: float | None = None,
) -> Preprocess:
    """Return the preprocessing of a data set: its own, except for what the recipe sets.

    Args:
        spec: the recipe's ``data``.
        side: in pixels, of the square that the network sees.
        mean: of each channel over the training images, in [0, 1].
        std: likewise.
        crop: the centre's side as a share of the resized shorter side; None: the whole image becomes the square.

    Raises:
        RecipeError: if ``data.mean`` or ``data.std`` has another number of channels.
    """
    for name, given in (("mean", spec.mean), ("std", spec.std)):
        if given is not None and len(given) != len(mean):
            raise RecipeError(
                f"data.{name} has {len(given)} values.",
                allowed=f"one for each channel; the images of '{spec.name}' have {len(mean)}",
                next_step=f"--set 'data.{name}=[{', '.join(['0.5'] * len(mean))}]', with your numbers",
            )
    side = spec.image_size or side
    share = crop if spec.crop is None else None if spec.crop == "none" else spec.crop
    return Preprocess(
        channels=3 if len(mean) == 3 else 1,
        resize=round(side / share) if share else (side, side),
        crop=(side, side) if share else None,
        interpolation=spec.interpolation or "bilinear",
        mean=spec.mean or mean,
        std=spec.std or std,
        white_level=spec.white_level,
    )


class _Resized:
    """Samples whose geometry is applied when they are asked for."""

    def __init__(self, samples: ArraySamples, preprocess: Preprocess) -> None:
        self._samples, self._preprocess = samples, preprocess

    @property
    def targets(self) -> Array:
        return self._samples.targets

    @property
    def in_memory(self) -> bool:
        return False

    def __len__(self) -> int:
        return len(self._samples)

    def examples(self, indices: Indices) -> Images:
        return np.stack([geometry(image, self._preprocess) for image in self._samples.examples(indices)])

    def originals(self, indices: Indices) -> list[Images]:
        return list(self._samples.examples(indices))


class _ResizedAtOnce(ArraySamples):
    """Samples whose geometry was applied when they were made."""

    def __init__(self, resized: _Resized) -> None:
        super().__init__(resized.examples(np.arange(len(resized))), resized.targets)
        self._resized = resized

    def originals(self, indices: Indices) -> list[Images]:
        return self._resized.originals(indices)


def _fitted(images: Images, targets: Array, preprocess: Preprocess) -> Samples:
    samples = ArraySamples(images, targets)
    if len(images) == 0:
        return samples
    first = geometry(images[0], preprocess)
    if np.array_equal(first, images[0]):
        return samples
    resized = _Resized(samples, preprocess)
    if first.nbytes * len(images) > _IN_MEMORY:
        return resized
    return _ResizedAtOnce(resized)
