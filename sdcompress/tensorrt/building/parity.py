"""Compare engines with the checkpoint's logits on the golden images, by the runtime that services use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.read import Artifact
from sdcompress.errors import ParityError
from sdcompress.modalities._geometry import normalise
from sdcompress.runtime.resident.buckets import buckets
from sdcompress.schema.engines import BatchProfile
from sdcompress.schema.manifest import Manifest
from sdcompress.schema.parity import ParityRecord
from sdcompress.tasks import _probabilities as metrics

__all__ = ["TF32_RTOL", "Exits", "alternative_build", "compare_exit", "run_parity", "tf32_applies", "tolerance"]

Float = npt.NDArray[np.float32]

# TF32 keeps 10 bits of mantissa: a product is off by at most 2^-11, and a network sums many of them. Not measured on a
# GPU yet.
TF32_RTOL = 0.01


class Exits(Protocol):
    """The part of the runtime's engine that is used here."""

    def exits(self, inputs: Float) -> Float:
        """The logits of every exit, float32 [E, B, K], of inputs [B, C, H, W]."""


def run_parity(
    artifact: Artifact, engine: Exits, *, profiles: Sequence[BatchProfile], tf32: bool
) -> tuple[ParityRecord, ...]:
    """Compare all exits on the golden images, in every batch size that the runtime rounds up to.

    Args:
        artifact: with the plans in it.
        engine: that runs them.
        profiles: that the plans have.
        tf32: whether FP32 layers may use TF32; the tolerance is wider then.

    Raises:
        ParityError: if an exit's logits are not the checkpoint's.
    """
    golden = artifact.golden()
    inputs = normalise(golden.images, artifact.manifest.input.preprocess)
    batches = buckets(profiles).rows
    runs = [_in_batches(engine, inputs, size) for size in batches]
    widened = tf32_applies(artifact.manifest, tf32=tf32)
    records, problems = [], []
    for index, record in enumerate(artifact.manifest.parity):
        limit = tolerance(record.allowed, golden.logits[index], tf32=widened)
        compared, problem = compare_exit(
            record.exit, [logits[index] for logits in runs], golden.logits[index], batches=batches, limit=limit
        )
        records.append(compared)
        problems += [problem] if problem else []
    if problems:
        raise ParityError(
            f"The engines do not compute what the checkpoint computes: {'; '.join(problems)}.",
            allowed="logits within the artifact's own tolerance (wider with TF32), and no class that flips beyond it",
            next_step=alternative_build(artifact.manifest, tf32=widened),
        )
    return tuple(compared for compared in records if compared is not None)


def alternative_build(manifest: Manifest, *, tf32: bool) -> str:
    """The next step for engines that are too far from their graphs.

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
    """The tolerance of a logit: the artifact's, or with TF32 at least a hundredth of the exit's largest logit."""
    return max(limit, TF32_RTOL * float(np.abs(reference).max())) if tf32 else limit


def compare_exit(
    name: str, runs: Sequence[Float], reference: Float, *, batches: tuple[int, ...], limit: float
) -> tuple[ParityRecord | None, str]:
    """Compare one exit in every batch size.

    Args:
        name: of the exit.
        runs: logits [N, K] of the same N images, one for each batch size.
        reference: float32 [N, K], the checkpoint's.
        batches: the sizes.
        limit: the largest allowed difference of a logit.

    Returns:
        The record, None if a logit is not finite; and the problem as text, empty if the exit passed.
    """
    difference = np.stack(runs) - reference
    if not np.isfinite(difference).all():
        return None, f"{name}: logits are not finite"
    flips = metrics.flips(runs, reference, margin=2 * limit)
    worst = float(np.abs(difference).max())
    record = ParityRecord(exit=name, samples=len(reference), batches=batches, max_abs=worst, allowed=limit, flips=flips)
    if worst > limit or flips:
        return record, f"{name}: logits are off by {worst:.2g} (allowed {limit:.2g}), {flips} classes change"
    return record, ""


def _in_batches(engine: Exits, inputs: Float, size: int) -> Float:
    """The logits of all images in batches of one size; the first images fill up the last batch."""
    count = len(inputs)
    rows = np.arange(-(-count // size) * size) % count
    outputs: list[Any] = [engine.exits(inputs[rows[at : at + size]]) for at in range(0, len(rows), size)]
    logits: Float = np.concatenate(outputs, axis=1)[:, :count]
    return logits
