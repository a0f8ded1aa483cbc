"""What the file of a data set returns: its samples before they are split further."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sdcompress.data.samples import ArraySamples, Images, Labels, Samples
from sdcompress.errors import RecipeError
from sdcompress.modalities._geometry import geometry
from sdcompress.schema import recipe
from sdcompress.schema.manifest import Preprocess

__all__ = ["Source", "array_source", "data_folder", "preprocessing"]

_IN_MEMORY = 2**30  # bytes; a larger resized set is resized batch by batch


@dataclass(frozen=True)
class Source:
    """A data set as published.

    Attributes:
        outputs: K names, in the order of the targets.
        preprocess: from an image to the network's input; the samples are past its geometry.
        train: training samples.
        digest: SHA-256 of what the samples are made of (pixels, or paths and sizes of files).
        val: validation samples, if the set has such a split.
        test: test samples, if the set has such a split.
        names: SHA-256 of the names of the samples, where they have some.
        left_out: positions that ``data.without`` names, in the samples of ``train``, ``val`` and ``test``. Their images
            are never asked for.
    """

    outputs: tuple[str, ...]
    preprocess: Preprocess
    train: Samples
    digest: str
    val: Samples | None = None
    test: Samples | None = None
    names: str | None = None
    left_out: Mapping[str, Collection[int]] = field(default_factory=dict)


def array_source(
    outputs: tuple[str, ...],
    preprocess: Preprocess,
    train: tuple[Images, Labels],
    test: tuple[Images, Labels] | None = None,
) -> Source:
    """A source of images that lie in memory at their own size.

    Args:
        outputs: K names.
        preprocess: its geometry is applied here.
        train: images uint8 [N, H, W, C] and labels [N].
        test: the same, if the set has a test split.
    """
    digest = hashlib.sha256()
    for images, _ in filter(None, (train, test)):
        digest.update(repr(images.shape).encode() + np.ascontiguousarray(images).tobytes())
    return Source(
        outputs=outputs,
        preprocess=preprocess,
        train=_fitted(*train, preprocess),
        test=_fitted(*test, preprocess) if test is not None else None,
        digest=digest.hexdigest(),
    )


def data_folder(spec: recipe.Data) -> Path:
    """Where data lie: ``data.dir``, else the environment's SDCOMPRESS_DATA, else ./data."""
    return Path(spec.dir or os.environ.get("SDCOMPRESS_DATA") or "data")


def preprocessing(
    spec: recipe.Data,
    *,
    side: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    crop: float | None = None,
) -> Preprocess:
    """The preprocessing of a data set: its own, except for what the recipe sets.

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
    def targets(self) -> Labels:
        return self._samples.targets

    @property
    def in_memory(self) -> bool:
        return False

    def __len__(self) -> int:
        return len(self._samples)

    def examples(self, indices: Labels) -> Images:
        return np.stack([geometry(image, self._preprocess) for image in self._samples.examples(indices)])

    def originals(self, indices: Labels) -> list[Images]:
        return list(self._samples.examples(indices))


class _ResizedAtOnce(ArraySamples):
    """Samples whose geometry was applied when they were made."""

    def __init__(self, resized: _Resized) -> None:
        super().__init__(resized.examples(np.arange(len(resized))), resized.targets)
        self._resized = resized

    def originals(self, indices: Labels) -> list[Images]:
        return self._resized.originals(indices)


def _fitted(images: Images, labels: Labels, preprocess: Preprocess) -> Samples:
    samples = ArraySamples(images, labels)
    if len(images) == 0:
        return samples
    first = geometry(images[0], preprocess)
    if np.array_equal(first, images[0]):
        return samples
    resized = _Resized(samples, preprocess)
    if first.nbytes * len(images) > _IN_MEMORY:
        return resized
    return _ResizedAtOnce(resized)
