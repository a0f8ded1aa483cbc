"""Labelled images as the network sees them: uint8, at its geometry, fetched by position."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from sdcompress import tasks
from sdcompress.errors import DataError
from sdcompress.modalities import Modality
from sdcompress.modalities.image import Image
from sdcompress.schema.manifest import Preprocess
from sdcompress.tasks import Task

__all__ = ["ArraySamples", "Dataset", "Images", "Labels", "Samples", "Subset", "originals", "without_setting"]

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
_NAMED = 10  # broken images that an error names


class Samples(Protocol):
    """A sequence of labelled images, in memory or decoded when asked for."""

    @property
    def targets(self) -> Labels:
        """All labels, [N], in 0..K-1."""

    @property
    def in_memory(self) -> bool:
        """Whether ``images`` copies what is decoded already."""

    def __len__(self) -> int: ...

    def examples(self, indices: Labels) -> Images:
        """The images at these positions, [b, H, W, C], C 1 (grey) or 3 (RGB), resized and cropped already.

        Raises:
            DataError: if an image cannot be decoded.
        """


class ArraySamples:
    """Samples held in memory.

    Args:
        images: uint8 [N, H, W, C], C 1 or 3.
        labels: integers [N].

    Raises:
        DataError: if a shape or a dtype is another.
    """

    def __init__(self, images: Images, labels: npt.NDArray[np.integer]) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in {1, 3}:
            raise DataError(
                f"The images are {images.dtype} of shape {list(images.shape)}.",
                allowed="uint8 of shape [N, H, W, 1] or [N, H, W, 3]",
                next_step="convert the array before making samples of it",
            )
        if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
            raise DataError(
                f"There are {len(images)} images, and labels of {labels.dtype} and shape {list(labels.shape)}.",
                allowed="one integer for each image",
                next_step="check that images and labels belong together",
            )
        self._images = images
        self._labels = labels.astype(np.int64)

    @property
    def targets(self) -> Labels:
        """All labels, [N]."""
        return self._labels

    @property
    def in_memory(self) -> bool:
        """Yes."""
        return True

    def __len__(self) -> int:
        return len(self._images)

    def examples(self, indices: Labels) -> Images:
        """The images at these positions, [b, H, W, C]: a copy."""
        return self._images[indices]


class Subset:
    """Some of the samples, in the order of the indices.

    Args:
        samples: what to choose from.
        indices: int64 [n], positions in ``samples``.
    """

    def __init__(self, samples: Samples, indices: Labels) -> None:
        self._samples, self._indices = samples, indices
        self._labels = samples.targets[indices]

    @property
    def targets(self) -> Labels:
        """The chosen labels, [n]."""
        return self._labels

    @property
    def in_memory(self) -> bool:
        """As what was chosen from."""
        return self._samples.in_memory

    def __len__(self) -> int:
        return len(self._indices)

    def originals(self, indices: Labels) -> list[Images] | None:
        """The images at these positions at their own size, if they are kept so."""
        return originals(self._samples, self._indices[indices])

    def examples(self, indices: Labels) -> Images:
        """The images at these positions of the subset, [b, H, W, C]."""
        return self._samples.examples(self._indices[indices])

    def problem(self, position: int) -> tuple[str, str] | None:
        """The name of an image that cannot be used and why, as far as its file's header and end tell; else None."""
        whole, index = self._samples, int(self._indices[position])
        if not isinstance(whole, _InFiles):
            return None
        why = whole.problem(index)
        return (whole.name(index), why) if why else None


def without_setting(names: Iterable[str]) -> str:
    """What to type so that images are left out, of whatever letters their names are."""
    return "--set " + shlex.quote(f"data.without={json.dumps(list(names), ensure_ascii=False)}")


@runtime_checkable
class _InFiles(Protocol):
    """What samples offer whose images are files with names."""

    def name(self, position: int) -> str: ...

    def problem(self, position: int) -> str | None: ...


@dataclass(frozen=True)
class Dataset:
    """A data set, split and ready.

    Attributes:
        name: the source's name.
        train: what may be learnt from.
        val: held out for decisions (exit thresholds, model choice); empty if the recipe says ``validation: 0``.
        test: held out for the reported figures.
        outputs: names of what the network's outputs stand for: of K classes, a target is a position in it.
        preprocess: from any image to the network's input. Samples are past its geometry, not past its normalisation.
        fingerprint: SHA-256 over name, classes, preprocessing, labels, content and split.
        layout: the same over the names of the samples in the place of their content: it stays where a file is lost.
    """

    name: str
    train: Samples
    val: Samples
    test: Samples
    outputs: tuple[str, ...]
    preprocess: Preprocess
    fingerprint: str
    layout: str = ""

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height and width of the network's input."""
        height, width, channels = self.train.examples(np.zeros(1, np.int64)).shape[1:]
        return channels, height, width

    @property
    def task(self) -> Task:
        """What the targets mean."""
        return tasks.build("classification", self.outputs, {})

    @property
    def modality(self) -> Modality:
        """What the examples are."""
        return Image(self.preprocess, self.image)

    def check(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Read the header of every image that is a file, so that a broken one is found before it is needed.

        Args:
            progress: called with (images checked, all images), about a thousand times.

        Raises:
            DataError: if one cannot be used; names up to ten of them.
        """
        parts = [part for part in (self.train, self.val, self.test) if isinstance(part, Subset) and not part.in_memory]
        total, done, broken = sum(map(len, parts)), 0, dict[str, str]()
        for part in parts:
            for position in range(len(part)):
                broken.update(filter(None, [part.problem(position)]))
                done += 1
                if progress and (done % max(1, total // 1000) == 0 or done == total):
                    progress(done, total)
        if broken:
            first = list(broken.items())[:_NAMED]
            more = f", and {len(broken) - len(first)} more" if len(broken) > len(first) else ""
            raise DataError(
                f"{len(broken)} of {total} images of '{self.name}' cannot be used: "
                + "; ".join(f"{name}: {why.rstrip('.')}" for name, why in first)
                + more
                + ".",
                allowed="whole image files",
                next_step="repair them, or train without them: "
                + without_setting(name for name, _ in first)
                + (", and the others too" if more else ""),
            )

    def split(self, name: Literal["validation", "test"]) -> Samples:
        """The samples to measure on.

        Raises:
            DataError: if that split is empty.
        """
        samples = self.val if name == "validation" else self.test
        if len(samples) == 0:
            raise DataError(
                f"The {name} split of '{self.name}' is empty.",
                allowed="a share of the training images is held out where data.validation is above 0",
                next_step="set data.validation, e.g. to 0.1, and train again",
            )
        return samples


@runtime_checkable
class _KeepsOriginals(Protocol):
    """What samples offer that can also give images at their own size."""

    def originals(self, indices: Labels) -> list[Images] | None: ...


def originals(samples: Samples, indices: Labels) -> list[Images] | None:
    """The images at these positions as they are decoded, uint8 [h, w, C] of any size; None: they are not kept so.

    Args:
        samples: N of them.
        indices: int64 [n].

    Raises:
        DataError: if an image cannot be decoded.
    """
    return samples.originals(indices) if isinstance(samples, _KeepsOriginals) else None
