"""Hold engines against the checkpoint's logits on the golden images, by running the plans as a service would."""

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

__all__ = ["TF32_RTOL", "Exits", "allowed", "compare", "other_build", "run_parity", "widens"]

Float = npt.NDArray[np.float32]

# TF32 keeps 10 bits of mantissa: a product is off by 2^-11 at most, and a network is a long sum of sums of them. Not
# measured by this package on any GPU yet.
TF32_RTOL = 0.01


class Exits(Protocol):
    """What this room needs of an engine of the runtime."""

    def exits(self, inputs: Float) -> Float:
        """The logits of every exit, float32 [E, B, K], of inputs [B, C, H, W]."""


def run_parity(
    artifact: Artifact, engine: Exits, *, profiles: Sequence[BatchProfile], tf32: bool
) -> tuple[ParityRecord, ...]:
    """Run the golden images in every batch that the runtime rounds others up to.

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
    widened = widens(artifact.manifest, tf32=tf32)
    records, problems = [], []
    for index, given in enumerate(artifact.manifest.parity):
        limit = allowed(given.allowed, golden.logits[index], tf32=widened)
        record, problem = compare(
            given.exit, [logits[index] for logits in runs], golden.logits[index], batches=batches, limit=limit
        )
        records.append(record)
        problems += [problem] if problem else []
    if problems:
        raise ParityError(
            f"The engines do not compute what the checkpoint computes: {'; '.join(problems)}.",
            allowed="logits within the artifact's own tolerance (wider with TF32), and no class that flips beyond it",
            next_step=other_build(artifact.manifest, tf32=widened),
        )
    return tuple(record for record in records if record is not None)


def other_build(manifest: Manifest, *, tf32: bool) -> str:
    """What to build instead where engines are too far from their graphs.

    Args:
        manifest: of the artifact.
        tf32: whether FP32 layers of it may use TF32.
    """
    if tf32:
        return "build with --no-tf32; if that does not help, another --level or TensorRT version"
    lower = [each for each in manifest.precisions if each != "fp32"]
    if lower:
        return (
            f"{' and '.join(lower)} costs more on this GPU than where it was measured: build the fp32 artifact, or "
            "quantize it again with another precision"
        )
    return "build with another --level or TensorRT version"


def widens(manifest: Manifest, *, tf32: bool) -> bool:
    """Whether TF32, where it is allowed, may change what an artifact computes."""
    return tf32 and "fp32" in manifest.precisions


def allowed(limit: float, reference: Float, *, tf32: bool) -> float:
    """How far a logit may be off: as in the artifact, or with TF32 at least a hundredth of the exit's largest."""
    return max(limit, TF32_RTOL * float(np.abs(reference).max())) if tf32 else limit


def compare(
    name: str, runs: Sequence[Float], reference: Float, *, batches: tuple[int, ...], limit: float
) -> tuple[ParityRecord | None, str]:
    """One exit in every batch size.

    Args:
        name: of the exit.
        runs: logits [N, K] of the same N images, one for each batch size.
        reference: float32 [N, K], the checkpoint's.
        batches: the sizes.
        limit: how far a logit may be off.

    Returns:
        The record, None if a logit is not finite; and what is wrong, empty if nothing.
    """
    difference = np.stack(runs) - reference
    if not np.isfinite(difference).all():
        return None, f"{name}: logits are not finite"
    best = np.sort(reference, axis=1)
    decided = (best[:, -1] - best[:, -2] if best.shape[1] > 1 else np.zeros(len(best))) > 2 * limit
    flips = int((np.stack([logits.argmax(1) != reference.argmax(1) for logits in runs]).any(0) & decided).sum())
    worst = float(np.abs(difference).max())
    record = ParityRecord(exit=name, samples=len(reference), batches=batches, max_abs=worst, allowed=limit, flips=flips)
    if worst > limit or flips:
        return record, f"{name}: logits are off by {worst:.2g} (allowed {limit:.2g}), {flips} classes change"
    return record, ""


def _in_batches(engine: Exits, inputs: Float, size: int) -> Float:
    """The logits of all images in batches of one size; the last batch is filled up with images from the beginning."""
    count = len(inputs)
    rows = np.arange(-(-count // size) * size) % count
    parts: list[Any] = [engine.exits(inputs[rows[at : at + size]]) for at in range(0, len(rows), size)]
    logits: Float = np.concatenate(parts, axis=1)[:, :count]
    return logits
