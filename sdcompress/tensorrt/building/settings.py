"""The settings of an engine build."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sdcompress.errors import UsageError
from sdcompress.evaluation.comparison import check_drop
from sdcompress.schema.engines import BatchProfile, HardwareCompatibility
from sdcompress.tensorrt.building.profiles import DEFAULT

__all__ = ["BuildSettings"]

_CACHES = (".timing", ".cache")  # ours, and what trtexec's documentation names them


@dataclass(frozen=True)
class BuildSettings:
    """How engines are built.

    Attributes:
        profiles: optimisation profiles, rising; each plan has all of them.
        workspace_bytes: most scratch memory of a layer's kernel.
        level: of the optimiser, 0 (builds fast) to 5; None for the version's default. From TensorRT 8.6.
        tf32: let FP32 layers use TF32 tensor cores, as TensorRT does by default: 10 bits of mantissa instead of 23.
        version_compatible: plans that later versions of TensorRT load too; may be slower. From 8.6.
        hardware_compatibility: plans that other GPUs run too; may be slower. From 8.6, the same compute capability
            from 10.9.
        timing_cache: file of the builder's measurements, written after each plan. Its name ends in .timing or .cache,
            so that a mistyped name cannot overwrite another file. None: a file in the user's cache folder, named after
            TensorRT, GPU and driver.
        validation_samples: most images to compare the engines with their graphs on; 0 for none.
        max_drop: accuracy that every exit and the policy may lose on them, 0.01 = one point.
        against: artifacts of other precisions with engines for this machine, to compare the speed with.
    """

    profiles: tuple[BatchProfile, ...] = DEFAULT
    workspace_bytes: int = 2 * 2**30
    level: int | None = None
    tf32: bool = True
    version_compatible: bool = False
    hardware_compatibility: HardwareCompatibility = "none"
    timing_cache: Path | None = None
    validation_samples: int = 2000
    max_drop: float = 0.01
    against: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.level is not None and not 0 <= self.level <= 5:
            raise UsageError(f"The level is {self.level}.", allowed="0 to 5", next_step="leave it out for the default")
        check_drop(self.max_drop)
        if self.validation_samples < 0:
            raise UsageError(
                f"The number of validation samples is {self.validation_samples}.",
                allowed="1 or more, or 0 for none",
                next_step="leave it out for 2000, or for all where there are fewer",
            )
        if self.timing_cache is not None and self.timing_cache.suffix not in _CACHES:
            raise UsageError(
                f"The timing cache is '{self.timing_cache}', and the build would write over such a file.",
                allowed=f"a name that ends in {' or '.join(_CACHES)}",
                next_step=f"e.g. --timing-cache {self.timing_cache.with_suffix('.timing')}",
            )
