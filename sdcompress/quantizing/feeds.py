"""What activations are like: training images as the float32 chain hands them from segment to segment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sdcompress.data.preprocess import normalise
from sdcompress.data.samples import Samples, Subset
from sdcompress.errors import DataError, UsageError
from sdcompress.exporting.chain import Chain
from sdcompress.quantizing.precisions._base import Feed
from sdcompress.schema.manifest import Manifest

__all__ = ["BATCH", "LEAST", "Feeds", "calibration_images"]

BATCH = 32
LEAST = 2 * BATCH


def calibration_images(training: Samples, count: int) -> Subset:
    """So many training images, spread evenly over all of them: the same for the same data.

    Raises:
        UsageError: if these are too few to say anything about ranges.
        DataError: if there are not so many.
    """
    if count < LEAST:
        raise UsageError(
            f"{count} images are asked for to calibrate with.",
            allowed=f"at least {LEAST}",
            next_step="leave --samples out: 512 are enough for most networks",
        )
    if count > len(training):
        raise DataError(
            f"There are {len(training)} training images, fewer than the {count} asked for to calibrate with.",
            allowed=f"{LEAST} to the number of training images",
            next_step=f"--samples {len(training)}" if len(training) >= LEAST else "train on more images",
        )
    return Subset(training, np.linspace(0, len(training) - 1, count).round().astype(np.int64))


class Feeds:
    """The inputs of any segment for the calibration images, made anew for every segment and never held all at once.

    Args:
        manifest: of the artifact.
        graphs: the float32 segments, in order.
        images: what to calibrate with.
        threads: of ONNX Runtime.
        tick: told how many images were run.
    """

    def __init__(
        self, manifest: Manifest, graphs: Sequence[bytes], images: Samples, *, threads: int, tick: Callable[[int], None]
    ) -> None:
        self._manifest, self._graphs, self._images = manifest, graphs, images
        self._threads, self._tick = threads, tick
        self.used = 0

    def of(self, position: int) -> Iterator[Feed]:
        """The inputs of the segment at a position, batch by batch."""
        self.used = len(self._images)
        spec = self._manifest.input
        chain = Chain(self._graphs[:position], network_input=spec.name, logits=(), threads=self._threads)
        names = [tensor.name for tensor in self._manifest.segments[position].inputs]
        for start in range(0, len(self._images), BATCH):
            rows = np.arange(start, min(start + BATCH, len(self._images)))
            tensors = chain.run(normalise(self._images.images(rows), spec.preprocess))
            yield {name: tensors[name] for name in names}
            self._tick(len(rows))
