"""Calibration data for quantising: the inputs of each float32 segment on training images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sdcompress.data.samples import Samples, Subset
from sdcompress.data.split import sample_order
from sdcompress.errors import DataError, UsageError
from sdcompress.modalities._geometry import normalise
from sdcompress.progress import Progress
from sdcompress.quantizing.precisions._base import Feed
from sdcompress.schema.manifest import Manifest
from sdcompress.tasks import Task, task_of
from sdcompress.verification.sessions import SegmentSessions

__all__ = ["BATCH", "DEFAULT", "MINIMUM", "CalibrationData", "calibration_images"]

BATCH = 32
MINIMUM = 2 * BATCH
DEFAULT = 512
_SEED = (512, 0)  # no setting: redrawing until a precision looks good would select the images


def calibration_images(training: Samples, task: Task, count: int | None) -> Subset:
    """A random subset of the training images, stratified by the task's strata, the same for the same data.

    Every prefix of it is stratified too, so that each batch holds a mix of classes.

    Args:
        training: the images to choose from.
        task: of the network.
        count: of images; None: 512, or all where there are fewer.

    Raises:
        UsageError: if ``count`` is too small to measure ranges.
        DataError: if there are fewer training images than ``count``.
    """
    if count is None:
        count = max(MINIMUM, min(DEFAULT, len(training)))
    if count < MINIMUM:
        raise UsageError(
            f"{count} images are asked for to calibrate with.",
            allowed=f"at least {MINIMUM}",
            next_step=f"leave --samples out: {DEFAULT} are enough for most networks",
        )
    if count > len(training):
        raise DataError(
            f"There are {len(training)} training images, fewer than the {count} asked for to calibrate with.",
            allowed=f"{MINIMUM} to the number of training images",
            next_step=f"--samples {len(training)}" if len(training) >= MINIMUM else "train on more images",
        )
    return Subset(training, sample_order(task, training.targets, seed=_SEED)[:count])


class CalibrationData:
    """The inputs of any segment for the calibration images, computed batch by batch on each call.

    Args:
        manifest: of the artifact.
        graphs: the float32 segments, in order.
        training: training images.
        count: of calibration images, see ``calibration_images``; checked only if a precision asks for feeds.
        threads: of ONNX Runtime.
        progress: called with (images run, images of all segments).

    Attributes:
        threads: of ONNX Runtime.
        used: images that a precision has used; 0: it asked for none.
    """

    def __init__(
        self,
        manifest: Manifest,
        graphs: Sequence[bytes],
        training: Samples,
        *,
        count: int | None,
        threads: int,
        progress: Progress | None,
    ) -> None:
        self._manifest, self._graphs, self._training = manifest, graphs, training
        self._count, self.threads, self._progress = count, threads, progress
        self.used = 0

    def feeds(self, position: int) -> Iterator[Feed]:
        """The inputs of the segment at a position, batch by batch."""
        images = calibration_images(self._training, task_of(self._manifest), self._count)
        self.used, images_before = len(images), position * len(images)
        spec = self._manifest.input
        sessions = SegmentSessions(self._graphs[:position], network_input=spec.name, logits=(), threads=self.threads)
        names = [tensor.name for tensor in self._manifest.segments[position].inputs]
        for start in range(0, len(images), BATCH):
            rows = np.arange(start, min(start + BATCH, len(images)))
            tensors = sessions.run(normalise(images.examples(rows), spec.preprocess))
            yield {name: tensors[name] for name in names}
            if self._progress is not None:
                self._progress(images_before + int(rows[-1]) + 1, len(images) * len(self._graphs))
