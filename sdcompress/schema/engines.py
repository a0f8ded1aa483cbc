"""TensorRT engines of an artifact, as its manifest lists them. Specified in docs/artifact.md."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from sdcompress.schema.base import Fraction, Frozen, Sha256
from sdcompress.schema.change import ExitChange, ParityRecord, PolicyChange
from sdcompress.schema.graphs import FileEntry

__all__ = ["BatchProfile", "Engines", "HardwareCompatibility", "Plan", "SpeedComparison", "Validation"]

HardwareCompatibility = Literal["none", "ampere_plus", "same_compute_capability"]


class BatchProfile(Frozen):
    """An optimisation profile: the batches that a plan takes, and the one it is tuned for."""

    min: PositiveInt
    opt: PositiveInt
    max: PositiveInt

    @model_validator(mode="after")
    def _rising(self) -> BatchProfile:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"a batch profile rises: {self.min} <= {self.opt} <= {self.max} does not hold")
        return self


class Plan(FileEntry):
    """The serialized engine of one segment. It is code for the GPU: nothing loads it whose hash does not stand here."""

    device_memory_bytes: Annotated[int, Field(ge=0)] = Field(description="scratch memory of one execution context")
    layers: dict[str, PositiveInt] = Field(
        description="data type of a layer's outputs, as the engine inspector says -> number of layers"
    )


class Validation(Frozen):
    """Engines against the graphs they were built from (onnxruntime on the CPU), on samples of the validation split."""

    samples: PositiveInt
    max_drop: Fraction = Field(description="of the metric, that every exit, and the policy, were allowed to lose")
    exits: tuple[ExitChange, ...]
    policy: PolicyChange | None = Field(description="under the thresholds at hand; null without a policy")


class SpeedComparison(Frozen):
    """These engines and another artifact's on the same GPU, in interleaved rounds: to the last exit, host to host."""

    digest: Sha256 = Field(description="of the other artifact, when its engines were timed")
    precision: str = Field(description="of its graphs")
    batch: PositiveInt
    ms: PositiveFloat = Field(description="median of these engines")
    other_ms: PositiveFloat
    speedup: PositiveFloat = Field(description="mean time of the other / mean time of these; above 1: these are faster")
    low: PositiveFloat = Field(description="95 % interval over rounds")
    high: PositiveFloat
    verdict: Literal["faster", "slower", "no difference"]


class Engines(Frozen):
    """One TensorRT engine for each segment, built on one GPU with one version of TensorRT."""

    gpu: str = Field(description="as the driver names it")
    compute_capability: Annotated[str, Field(pattern=r"^\d+\.\d+$")]
    tensorrt: Annotated[str, Field(pattern=r"^\d+(\.\d+)+$")]
    driver: str = Field(description="version of the NVIDIA driver; empty: not known")
    plans: Annotated[tuple[Plan, ...], Field(min_length=1)] = Field(description="one for each segment, in their order")
    profiles: Annotated[tuple[BatchProfile, ...], Field(min_length=1)] = Field(description="rising, of every plan")
    tf32: bool = Field(description="whether FP32 layers may use TF32 tensor cores")
    workspace_bytes: PositiveInt
    builder_optimization_level: Annotated[int, Field(ge=0, le=5)] | None = Field(description="null: before 8.6")
    version_compatible: bool = False
    hardware_compatibility: HardwareCompatibility = "none"
    log: FileEntry = Field(description="what the builder said")
    parity: tuple[ParityRecord, ...] = Field(description="of every exit, against the checkpoint on the golden samples")
    validation: Validation | None = Field(
        None, description="null: no validation samples were at hand, or none asked for"
    )
    speed_comparisons: tuple[SpeedComparison, ...] = Field(
        (), description="other artifacts' engines that were timed beside these"
    )

    @model_validator(mode="after")
    def _profiles_follow_each_other(self) -> Engines:
        for before, after in zip(self.profiles, self.profiles[1:], strict=False):
            if after.min > before.max + 1 or after.max <= before.max:
                raise ValueError("batch profiles rise and leave no batch out between them")
        return self

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Return its files."""
        return (*self.plans, self.log)
