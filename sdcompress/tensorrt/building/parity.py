"""Compare engines with the checkpoint's outputs on the golden examples, by the runtime that services use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.read import Artifact
from sdcompress.errors import ParityError
from sdcompress.modalities import Inputs
from sdcompress.runtime.on_device.buckets import buckets
from sdcompress.schema.change import ParityRecord
from sdcompress.schema.engines import BatchProfile
from sdcompress.schema.manifest import Manifest
from sdcompress.tasks import Task
from sdcompress.verification.parity import count_flips

__all__ = ["TF32_RTOL", "RunsExits", "alternative_build", "compare_exit", "run_parity", "tf32_applies", "tolerance"]

Float = npt.NDArray[np.float32]

# TF32 keeps 10 bits of mantissa: a product is off by at most 2^-11, and a network sums many of them. Not measured on a
# GPU yet.
TF32_RTOL = 0.01


class RunsExits(Protocol):
    """The part of the runtime's engine that is used here."""

    def exits(self, inputs: Inputs) -> Float:
        """Return the outputs of every exit, float32 [E, B, ...]."""


def run_parity(
    artifact: Artifact, engine: RunsExits, *, profiles: Sequence[BatchProfile], tf32: bool
) -> tuple[ParityRecord, ...]:
    """Compare all exits on the golden examples, in every batch size that the runtime rounds up to.

    Args:
        artifact: with the plans in it.
        engine: that runs them.
        profiles: that the plans have.
        tf32: whether FP32 layers may use TF32; the tolerance is wider then.

    Raises:
        ParityError: if an exit's outputs are not the checkpoint's.
    """
    golden = artifact.golden()
    inputs = artifact.modality.collate(golden.examples)
    batches = buckets(profiles).rows
    runs = [_in_batches(engine, inputs, size) for size in batches]
    widened = tf32_applies(artifact.manifest, tf32=tf32)
    records, problems = [], []
    for index, record in enumerate(artifact.manifest.parity):
        limit = tolerance(record.tolerance, golden.outputs[index], tf32=widened)
        compared, problem = compare_exit(
            record.exit,
            [outputs[index] for outputs in runs],
            golden.outputs[index],
            task=artifact.task,
            batches=batches,
            limit=limit,
        )
        records.append(compared)
        problems += [problem] if problem else []
    if problems:
        raise ParityError(
            f"The engines do not compute what the checkpoint computes: {'; '.join(problems)}.",
            allowed="outputs within the artifact's own tolerance (wider with TF32)",
            next_step=alternative_build(artifact.manifest, tf32=widened),
        )
    return tuple(compared for compared in records if compared is not None)


def alternative_build(manifest: Manifest, *, tf32: bool) -> str:
    """Return the next step for engines that are too far from their graphs.

    Args:
        manifest: of the artifact.
        tf32: whether FP32 layers of it may use TF32.
    """
    if tf32:
        return "build with --no-tf32; if that does not help, another --level or TensorRT version"
    lower = [precision for precision in manifest.precisions if precision != "fp32"]
    if lower:
        return (
            f"{' and '.join(lower)} costs more on this GPU than where it was measured: build the fp32 artifact, or "
            "quantize it again with another precision"
        )
    return "build with another --level or TensorRT version"


def tf32_applies(manifest: Manifest, *, tf32: bool) -> bool:
    """Whether TF32 is allowed and the artifact has fp32 layers that it changes."""
    return tf32 and "fp32" in manifest.precisions


def tolerance(limit: float, reference: Float, *, tf32: bool) -> float:
    """The tolerance of an output: the artifact's, or with TF32 at least a hundredth of the exit's largest output."""
    return max(limit, TF32_RTOL * float(np.abs(reference).max())) if tf32 else limit


def compare_exit(
    name: str, runs: Sequence[Float], reference: Float, *, task: Task, batches: tuple[int, ...], limit: float
) -> tuple[ParityRecord | None, str]:
    """Compare one exit in every batch size.

    Args:
        name: of the exit.
        runs: outputs [N, ...] of the same N examples, one for each batch size.
        reference: float32 [N, ...], the checkpoint's.
        task: what the outputs mean.
        batches: the sizes.
        limit: the largest allowed difference of an output.

    Returns:
        The record, None if an output is not finite; and the problem as text, empty if the exit passed.
    """
    difference = np.stack(runs) - reference
    if not np.isfinite(difference).all():
        return None, f"{name}: outputs are not finite"
    flips = count_flips(task, runs, reference, allowed=limit)
    worst = float(np.abs(difference).max())
    record = ParityRecord(
        exit=name, samples=len(reference), batches=batches, max_abs_diff=worst, tolerance=limit, flips=flips
    )
    if worst > limit:
        return record, f"{name}: outputs are off by {worst:.2g} (allowed {limit:.2g}), {flips} decisions change"
    return record, ""


def _in_batches(engine: RunsExits, inputs: Inputs, size: int) -> Float:
    """The outputs of all examples in batches of one size; the first examples fill up the last batch."""
    count = len(inputs)
    rows = np.arange(-(-count // size) * size) % count
    batches: list[Any] = [engine.exits(inputs[rows[at : at + size]]) for at in range(0, len(rows), size)]
    outputs: Float = np.concatenate(batches, axis=1)[:, :count]
    return outputs
