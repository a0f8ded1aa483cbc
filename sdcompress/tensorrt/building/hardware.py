"""Whether a GPU has the arithmetic of an artifact's graphs. Pure: asked before TensorRT is loaded, let alone builds."""

from __future__ import annotations

from sdcompress.errors import SetupError, UsageError
from sdcompress.schema.engines import HardwareCompatibility
from sdcompress.schema.manifest import Manifest
from sdcompress.tensorrt.nvidia.install import parts
from sdcompress.tensorrt.nvidia.probe import Gpu

__all__ = ["check_graphs", "check_hardware"]

_FP8 = "8.9"  # Ada; Model Optimizer's "Support Matrix", and TensorRT for RTX, "Working with Quantized Types"
_OTHER = "build the artifact in fp16 or int8: sdcompress quantize ARTIFACT --precision fp16 --out OUT"


def check_graphs(manifest: Manifest) -> None:
    """Refuse graphs that are for CPUs, which no GPU is needed to know.

    Args:
        manifest: of the artifact.

    Raises:
        UsageError: if they are.
    """
    if "uint8" in manifest.precisions:
        raise UsageError(
            "The graphs are in uint8, which is for CPUs: TensorRT takes signed codes with zero points of 0 only.",
            allowed="fp32, fp16, bf16, int8, fp8",
            next_step="quantise the artifact that this was made from to another one: sdcompress quantize ARTIFACT "
            "--precision int8 --out OUT",
        )


def check_hardware(manifest: Manifest, gpu: Gpu, hardware_compatibility: HardwareCompatibility) -> None:
    """Refuse what cannot be built here, or not for the GPUs that are asked for.

    Args:
        manifest: of the artifact.
        gpu: that is here.
        hardware_compatibility: which other GPUs the engines are to run on.

    Raises:
        SetupError: if the GPU has no 8-bit floats and the graphs do.
        UsageError: if the engines are to run on GPUs that have none.
    """
    files = [segment.file for segment in manifest.segments if segment.precision == "fp8"]
    if not files:
        return
    if parts(gpu.compute_capability) < parts(_FP8):
        raise SetupError(
            f"'{files[0]}' is in fp8, and {gpu.name} has compute capability {gpu.compute_capability}.",
            allowed=f"GPUs of compute capability {_FP8} or later (Ada, Hopper, Blackwell)",
            next_step=_OTHER,
        )
    if hardware_compatibility == "ampere_plus":
        raise UsageError(
            f"'{files[0]}' is in fp8, and engines for every GPU from compute capability 8.0 are asked for.",
            allowed=f"engines for GPUs from {_FP8} on, which have 8-bit floats: without --hardware-compatible, or with "
            "same_compute_capability",
            next_step=f"leave it out, or {_OTHER}",
        )
