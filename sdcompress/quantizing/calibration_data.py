"""Calibration data for quantising: the inputs of each float32 segment on training samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sdcompress.data.samples import Samples, Subset, row_batches
from sdcompress.data.split import sample_order
from sdcompress.errors import DataError, UsageError
from sdcompress.modalities import Inputs, modality_of
from sdcompress.progress import Progress
from sdcompress.quantizing.precisions._base import Feed
from sdcompress.schema.manifest import Manifest
from sdcompress.tasks import Task, task_of
from sdcompress.verification.sessions import SegmentSessions

__all__ = ["BATCH", "DEFAULT", "MINIMUM", "CalibrationData", "calibration_samples"]

BATCH = 32
MINIMUM = 2 * BATCH
DEFAULT = 512
_SEED = (512, 0)  # no setting: redrawing until a precision looks good would select the samples


def calibration_samples(training: Samples, task: Task, count: int | None) -> Subset:
    """Return a random subset of the training samples, stratified by the task's strata, the same for the same data.

    Every prefix of it is stratified too, so that each batch holds a mix of strata.

    Args:
        training: the samples to choose from.
        task: of the network.
        count: of samples; None: 512, or all where there are fewer.

    Raises:
        UsageError: if ``count`` is too small to measure ranges.
        DataError: if there are fewer training samples than ``count``.
    """
    if count is None:
        count = max(MINIMUM, min(DEFAULT, len(training)))
    if count < MINIMUM:
        raise UsageError(
            f"{count} samples are asked for to calibrate with.",
            allowed=f"at least {MINIMUM}",
            next_step=f"leave --calibration-samples out: {DEFAULT} are enough for most networks",
        )
    if count > len(training):
        raise DataError(
            f"There are {len(training)} training samples, fewer than the {count} that are to give the ranges.",
            allowed=f"{MINIMUM} to the number of training samples",
            next_step=f"--calibration-samples {len(training)}"
            if len(training) >= MINIMUM
            else "train on more samples, or take a precision without ranges: --precision fp16",
        )
    return Subset(training, sample_order(task, training.targets, seed=_SEED)[:count])


class CalibrationData:
    """The inputs of any segment for the calibration samples, computed batch by batch on each call.

    Args:
        manifest: of the artifact.
        graphs: the float32 segments, in order.
        training: training samples.
        count: of calibration samples, see ``calibration_samples``; checked only if a precision asks for feeds.
        threads: of ONNX Runtime.
        progress: called with (samples run, samples of all segments).

    Attributes:
        threads: of ONNX Runtime.
        used: samples that a precision has used; 0: it asked for none.
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
        self.used = self._reported = 0

    def feeds(self, position: int) -> Iterator[Feed]:
        """Return the inputs of the segment at a position, batch by batch; of texts at least one is padded."""
        samples = calibration_samples(self._training, task_of(self._manifest), self._count)
        self.used, done = len(samples), position * len(samples)
        modality = modality_of(self._manifest)
        sessions = SegmentSessions(self._graphs[:position], outputs=(), threads=self.threads)
        names = [tensor.name for tensor in self._manifest.segments[position].inputs]
        padded = False
        for rows in row_batches(len(samples), BATCH):
            inputs, run = modality.collate(samples.examples(rows)), int(rows[-1]) + 1
            padded = padded or _is_padded(inputs)
            tensors = sessions.run(inputs if padded or run < len(samples) else _one_padded(inputs))
            yield {name: tensors[name] for name in names}
            # a precision may read a segment's inputs again, and progress does not go back
            self._reported = max(self._reported, done + run)
            if self._progress is not None:
                self._progress(self._reported, len(samples) * len(self._graphs))


def _is_padded(inputs: Inputs) -> bool:
    return inputs.mask is not None and not inputs.arrays[inputs.mask].all()


def _one_padded(inputs: Inputs) -> Inputs:
    """Return inputs whose first text lacks its last token.

    Where no text is padded, the mask of attention is 0 everywhere. Codes for such a range would not hide padding later.
    """
    if inputs.mask is None or inputs.arrays[inputs.mask].shape[1] < 2:
        return inputs
    mask = inputs.arrays[inputs.mask].copy()
    mask[0, -1] = 0
    return Inputs({**inputs.arrays, inputs.mask: mask}, mask=inputs.mask)
