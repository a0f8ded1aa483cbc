"""Compare a precision with float32: every exit's quality on the validation split, its logits on the golden images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdcompress.artifact.golden import Golden
from sdcompress.data.samples import Samples, row_batches
from sdcompress.errors import VerificationError
from sdcompress.evaluation.comparison import ExitComparison, ExitQuality
from sdcompress.modalities import modality_of
from sdcompress.progress import Progress
from sdcompress.schema.manifest import Manifest, ParityRecord
from sdcompress.tasks import task_of
from sdcompress.verification.parity import count_flips
from sdcompress.verification.sessions import open_sessions

__all__ = ["ExitLoss", "compare_exits", "golden_records"]

_BATCH = 64  # what is between the layers of two networks is in memory, of texts with the square of their lengths
_MARGIN = 2  # a machine with other kernels may be this many times further from the checkpoint's outputs


@dataclass(frozen=True)
class ExitLoss:
    """One exit's loss of accuracy in a precision, as written to ``parity.json`` where an exit fails.

    Attributes:
        exit: its name.
        samples: of the validation split.
        metric_before: the metric in float32.
        metric_after: in the new precision.
        max_drop: how much smaller ``metric_after`` may be.
        decision_changes: samples with another decision.
        max_abs_diff: largest absolute difference of an output; None where one is not finite.
        worst: positions of up to 8 samples with the largest differences, largest first.
        problem: what is wrong, as a sentence; empty if the exit passed.
    """

    exit: str
    samples: int
    metric_before: float
    metric_after: float
    max_drop: float
    decision_changes: int
    max_abs_diff: float | None
    worst: tuple[int, ...]
    problem: str


def compare_exits(
    manifest: Manifest,
    before: Sequence[bytes],
    after: Sequence[bytes],
    samples: Samples,
    *,
    threads: int,
    progress: Progress | None,
) -> tuple[ExitQuality, ...]:
    """Return the quality of every exit before and after, on all samples; holds the outputs of one batch at a time.

    Args:
        manifest: of the artifact in float32.
        before: its graphs.
        after: the graphs in the new precision.
        samples: the validation split.
        threads: of ONNX Runtime.
        progress: called with (samples run, all samples).
    """
    sessions = [open_sessions(manifest, graphs, threads=threads) for graphs in (before, after)]
    modality = modality_of(manifest)
    task, exits = task_of(manifest), [exit_.name for exit_ in manifest.exits]
    comparison, batch = ExitComparison(task, exits), task.batch_size(_BATCH, 2 * len(exits))
    for rows in row_batches(len(samples), batch):
        inputs = modality.collate(samples.examples(rows))
        reference, quantised = (run(inputs) for run in sessions)
        comparison.add(reference, quantised, samples.targets[rows])
        if progress is not None:
            progress(int(rows[-1]) + 1, len(samples))
    return comparison.qualities()


def golden_records(
    manifest: Manifest, graphs: Sequence[bytes], golden: Golden, *, threads: int
) -> tuple[ParityRecord, ...]:
    """The distance of every exit from the checkpoint on the golden examples, and its tolerance on other machines.

    The graphs run with ONNX Runtime's optimisations (integer kernels) and without (float32 between the pairs). Both may
    round a number to neighbouring codes. ``allowed`` is twice the larger distance plus the tolerance of the export.

    Raises:
        VerificationError: if an output is not finite.
    """
    inputs, task = modality_of(manifest).collate(golden.examples), task_of(manifest)
    runs = [open_sessions(manifest, graphs, threads=threads, optimise=optimise)(inputs) for optimise in (True, False)]
    if not np.isfinite(runs).all():
        raise VerificationError(
            "An output of a golden example is not finite in this precision.",
            allowed="finite outputs",
            next_step="try another precision: sdcompress list precisions",
        )
    records = []
    for row, (exit_, before) in enumerate(zip(manifest.exits, manifest.parity, strict=True)):
        reference = golden.outputs[row]
        distance = max(float(np.abs(run[row] - reference).max()) for run in runs)
        records.append(
            ParityRecord(
                exit=exit_.name,
                samples=len(reference),
                batches=(len(reference),),
                max_abs_diff=distance,
                tolerance=_MARGIN * distance + before.tolerance,
                flips=count_flips(task, [runs[0][row]], reference),
            )
        )
    return tuple(records)
