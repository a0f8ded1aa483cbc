"""Check that a GPU has the arithmetic and the memory for an artifact's engines, before TensorRT is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sdcompress.errors import SetupError, UsageError
from sdcompress.schema.engines import BatchProfile, HardwareCompatibility
from sdcompress.schema.graphs import Precision, Tensor
from sdcompress.schema.manifest import Manifest
from sdcompress.tensorrt.nvidia.gpu_query import Gpu
from sdcompress.tensorrt.nvidia.install import major_minor

__all__ = ["check_graphs", "check_hardware", "check_memory", "least_bytes", "tensor_shape"]

# first compute capability with a type, by "Hardware and Precision" of TensorRT's support matrix
_FIRST: dict[Precision, tuple[str, str]] = {
    "bf16": ("8.0", "Ampere, Ada, Hopper, Blackwell"),
    "fp8": ("8.9", "Ada, Hopper, Blackwell"),
}
_AMPERE = (8, 0)
_OTHER = "build the artifact in fp16 or int8: sdcompress quantize ARTIFACT --precision fp16 --out OUT"


def check_graphs(manifest: Manifest) -> None:
    """Refuse graphs that are for CPUs, or of inputs that vary in more than their batch, such as texts; needs no GPU.

    Args:
        manifest: of the artifact.

    Raises:
        UsageError: if a graph is in uint8, or a tensor varies in another axis than the batch.
    """
    for segment in manifest.segments:
        for tensor in (*segment.inputs, *segment.outputs):
            tensor_shape(tensor, 1)
    if "uint8" in manifest.precisions:
        raise UsageError(
            "The graphs are in uint8, which is for CPUs: TensorRT takes signed codes with zero points of 0 only.",
            allowed="fp32, fp16, bf16, int8, fp8",
            next_step="quantise the artifact that this was made from to another one: sdcompress quantize ARTIFACT "
            "--precision int8 --out OUT",
        )


def check_hardware(manifest: Manifest, gpu: Gpu, hardware_compatibility: HardwareCompatibility) -> None:
    """Refuse bf16 and fp8 graphs that this GPU, or a requested one, cannot run.

    Args:
        manifest: of the artifact.
        gpu: that is here.
        hardware_compatibility: which other GPUs the engines are to run on.

    Raises:
        SetupError: if the GPU lacks the type of a graph.
        UsageError: if the engines shall also run on GPUs that lack it, or on any others, and this one is older
            than Ampere.
    """
    if hardware_compatibility != "none" and major_minor(gpu.compute_capability) < _AMPERE:
        raise UsageError(
            f"Engines for other GPUs too cannot be built on {gpu.name}, which has {gpu.compute_capability}.",
            allowed="--hardware-compatible on a GPU of compute capability 8.0 or later (Ampere)",
            next_step="leave it out, or build on such a GPU",
        )
    for precision, (first, families) in _FIRST.items():
        file = next((segment.file for segment in manifest.segments if segment.precision == precision), None)
        if file is None:
            continue
        if major_minor(gpu.compute_capability) < major_minor(first):
            raise SetupError(
                f"'{file}' is in {precision}, and {gpu.name} has compute capability {gpu.compute_capability}.",
                allowed=f"GPUs of compute capability {first} or later ({families})",
                next_step=_OTHER,
            )
        if hardware_compatibility == "ampere_plus" and major_minor(first) > _AMPERE:
            raise UsageError(
                f"'{file}' is in {precision}, and engines for every GPU from compute capability 8.0 were requested.",
                allowed=f"engines for GPUs from {first} on, which have that type: without --hardware-compatible, or "
                "with same_compute_capability",
                next_step=f"leave it out, or {_OTHER}",
            )


def least_bytes(manifest: Manifest, profiles: Sequence[BatchProfile]) -> int:
    """Return a lower bound of the memory of all engines of an artifact at the largest batch.

    It counts the weights (each graph's file, whose precision is the plan's) and the inputs and outputs of the segments.
    It cannot count the tensors inside a segment, the workspace of layers, and CUDA itself.

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
    """Refuse profiles that need more memory than the GPU has free.

    Args:
        manifest: of the artifact.
        profiles: to be built.
        free: free bytes of the GPU's memory.
        gpu: its name, for the message.

    Raises:
        SetupError: if the lower bound is larger than ``free``.
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
    """Return a tensor's shape at a batch size.

    Raises:
        UsageError: if it varies in another axis than the batch.
    """
    if any(isinstance(size, str) for size in tensor.shape[1:]):
        raise UsageError(
            f"The tensor '{tensor.name}' has the shape {list(tensor.shape)}: more than its batch varies.",
            allowed="graphs in which only the first axis varies",
            next_step="run it with onnxruntime; a network of images can be exported at one size",
        )
    first = tensor.shape[:1]
    fixed = [size for size in tensor.shape[1:] if isinstance(size, int)]
    return (*(batch if isinstance(size, str) else size for size in first), *fixed)


def _bytes(tensor: Tensor, batch: int) -> int:
    return math.prod(tensor_shape(tensor, batch)) * np.dtype(tensor.dtype).itemsize
