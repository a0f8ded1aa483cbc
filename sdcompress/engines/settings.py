"""What a build is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sdcompress.engines.profiles import DEFAULT
from sdcompress.errors import UsageError
from sdcompress.schema.engines import BatchProfile, HardwareCompatibility

__all__ = ["BuildSettings"]


@dataclass(frozen=True)
class BuildSettings:
    """How engines are built.

    Attributes:
        profiles: optimisation profiles, rising; each plan has all of them.
        workspace_bytes: memory that a layer's kernel may use for itself, at most.
        level: of the optimiser, 0 (builds fast) to 5; None for the version's default. From TensorRT 8.6.
        tf32: let FP32 layers use TF32 tensor cores, as TensorRT does by default: 10 bits of mantissa instead of 23.
        version_compatible: plans that later versions of TensorRT load too; may be slower. From 8.6.
        hardware_compatibility: plans that other GPUs run too; may be slower. From 8.6, the same compute capability
            from 10.9.
        timing_cache: a file of its own for the builder's measurements; None for one in the user's cache folder, named
            after TensorRT, GPU and driver.
    """

    profiles: tuple[BatchProfile, ...] = DEFAULT
    workspace_bytes: int = 2 * 2**30
    level: int | None = None
    tf32: bool = True
    version_compatible: bool = False
    hardware_compatibility: HardwareCompatibility = "none"
    timing_cache: Path | None = None

    def __post_init__(self) -> None:
        if self.level is not None and not 0 <= self.level <= 5:
            raise UsageError(f"The level is {self.level}.", allowed="0 to 5", next_step="leave it out for the default")
