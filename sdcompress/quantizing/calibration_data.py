"""What activations are like: training images as the float32 chain hands them from segment to segment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sdcompress.data.samples import Samples, Subset
from sdcompress.data.split import sample_order
from sdcompress.errors import DataError, UsageError
from sdcompress.modalities._geometry import normalise
from sdcompress.quantizing.precisions._base import Feed
from sdcompress.schema.manifest import Manifest
from sdcompress.tasks import Task, task_of
from sdcompress.verification.sessions import Chain

__all__ = ["BATCH", "LEAST", "USUAL", "CalibrationData", "calibration_images"]

BATCH = 32
LEAST = 2 * BATCH
USUAL = 512
_SEED = (512, 0)  # no setting: whoever draws until a precision looks good has chosen the images


def calibration_images(training: Samples, task: Task, count: int | None) -> Subset:
    """So many training images, drawn at random with the classes in their proportions: the same for the same data.

    Any beginning of them is as mixed as the whole, so that no batch holds one class because a folder does.

    Args:
        training: what to choose from.
        task: of the network; says in which strata.
        count: how many; None: 512, or all where there are fewer.

    Raises:
        UsageError: if these are too few to say anything about ranges.
        DataError: if there are not so many.
    """
    if count is None:
        count = max(LEAST, min(USUAL, len(training)))
    if count < LEAST:
        raise UsageError(
            f"{count} images are asked for to calibrate with.",
            allowed=f"at least {LEAST}",
            next_step=f"leave --samples out: {USUAL} are enough for most networks",
        )
    if count > len(training):
        raise DataError(
            f"There are {len(training)} training images, fewer than the {count} asked for to calibrate with.",
            allowed=f"{LEAST} to the number of training images",
            next_step=f"--samples {len(training)}" if len(training) >= LEAST else "train on more images",
        )
    return Subset(training, sample_order(task, training.targets, seed=_SEED)[:count])


class CalibrationData:
    """The inputs of any segment for the calibration images, made anew for every segment and never held all at once.

    Args:
        manifest: of the artifact.
        graphs: the float32 segments, in order.
        training: what to calibrate with.
        count: how many of them, see ``calibration_images``; looked at only if a precision asks for feeds.
        threads: of ONNX Runtime.
        progress: called with (images run, all of them for all segments).

    Attributes:
        threads: of ONNX Runtime.
        used: images that a precision was given; 0: none asked.
    """

    def __init__(
        self,
        manifest: Manifest,
        graphs: Sequence[bytes],
        training: Samples,
        *,
        count: int | None,
        threads: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._manifest, self._graphs, self._training = manifest, graphs, training
        self._count, self.threads, self._progress = count, threads, progress
        self.used = 0

    def of(self, position: int) -> Iterator[Feed]:
        """The inputs of the segment at a position, batch by batch."""
        images = calibration_images(self._training, task_of(self._manifest), self._count)
        self.used, done = len(images), position * len(images)
        spec = self._manifest.input
        chain = Chain(self._graphs[:position], network_input=spec.name, logits=(), threads=self.threads)
        names = [tensor.name for tensor in self._manifest.segments[position].inputs]
        for start in range(0, len(images), BATCH):
            rows = np.arange(start, min(start + BATCH, len(images)))
            tensors = chain.run(normalise(images.examples(rows), spec.preprocess))
            yield {name: tensors[name] for name in names}
            if self._progress is not None:
                self._progress(done + int(rows[-1]) + 1, len(images) * len(self._graphs))
