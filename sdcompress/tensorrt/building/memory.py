"""The least memory that engines will take on the GPU, from the manifest: said before minutes of building."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sdcompress.errors import SetupError, UsageError
from sdcompress.schema.engines import BatchProfile
from sdcompress.schema.graphs import Tensor
from sdcompress.schema.manifest import Manifest

__all__ = ["check_memory", "least_bytes", "tensor_shape"]


def least_bytes(manifest: Manifest, profiles: Sequence[BatchProfile]) -> int:
    """A lower bound of what all engines of an artifact hold at the largest batch.

    Counted: the weights (each graph's file, whose precision is the plan's) and the tensors at the borders of the
    segments. Not counted, because only a build tells: what layers hold inside a segment, their workspace, CUDA itself.

    Args:
        manifest: of the artifact.
        profiles: to be built.
    """
    largest = max(profile.max for profile in profiles)
    tensors = {tensor.name: tensor for tensor in manifest.inputs} | {
        tensor.name: tensor for segment in manifest.segments for tensor in segment.outputs
    }
    weights = sum(segment.bytes for segment in manifest.segments)
    return weights + sum(_bytes(tensor, largest) for tensor in tensors.values())


def check_memory(manifest: Manifest, profiles: Sequence[BatchProfile], *, free: int, gpu: str) -> None:
    """Refuse profiles that cannot fit.

    Args:
        manifest: of the artifact.
        profiles: to be built.
        free: bytes of the GPU's memory that nobody holds.
        gpu: its name, for the message.

    Raises:
        SetupError: if even the lower bound is more than what is free.
    """
    needed = least_bytes(manifest, profiles)
    if needed <= free:
        return
    largest = max(profile.max for profile in profiles)
    weights = sum(segment.bytes for segment in manifest.segments)
    fits = max(0, (free - weights) * largest // (needed - weights))
    raise SetupError(
        f"Engines for batches up to {largest} need at least {needed / 2**20:.0f} MiB on {gpu}, where "
        f"{free / 2**20:.0f} MiB are free.",
        allowed=f"batches up to {fits} or fewer: more is needed inside layers" if fits else "smaller graphs",
        next_step="choose a smaller --batch, or end what else uses the GPU (nvidia-smi shows it)",
    )


def tensor_shape(tensor: Tensor, batch: int) -> tuple[int, ...]:
    """A tensor's shape at a batch.

    Raises:
        UsageError: if it varies in another axis than the batch.
    """
    if any(isinstance(size, str) for size in tensor.shape[1:]):
        raise UsageError(
            f"The tensor '{tensor.name}' has the shape {list(tensor.shape)}: more than its batch varies.",
            allowed="graphs in which only the first axis varies",
            next_step="export the artifact again with a fixed image size",
        )
    first = tensor.shape[:1]
    fixed = [size for size in tensor.shape[1:] if isinstance(size, int)]
    return (*(batch if isinstance(size, str) else size for size in first), *fixed)


def _bytes(tensor: Tensor, batch: int) -> int:
    return math.prod(tensor_shape(tensor, batch)) * np.dtype(tensor.dtype).itemsize
