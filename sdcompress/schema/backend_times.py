"""What an artifact takes on the backends of one machine, as its manifest keeps it. Specified in docs/artifact.md."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from sdcompress.schema.base import Frozen

__all__ = ["BackendTimes"]


class BackendTimes(Frozen):
    """Mean times of one sample on the backends of one machine, measured in interleaved rounds."""

    cpu: str = Field(description="as the system names it")
    isa: tuple[str, ...] = Field(description="its vector extensions, which tell apart processors of one name")
    gpu: str | None = Field(None, description="as the driver names it; null on the device cpu")
    device: Literal["cpu", "cuda"]
    threads: PositiveInt = Field(description="of one call")
    created: str = Field(description="UTC, ISO 8601")
    input: str = Field(description="the samples")
    ms: Annotated[dict[str, PositiveFloat], Field(min_length=1)] = Field(
        description="backend -> mean ms of one sample, by the policy, where there is one"
    )
    versions: dict[str, str] = Field(description="of what was installed")

    @property
    def place(self) -> tuple[object, ...]:
        """Return what the times are for: the machine, the device and the threads."""
        return (self.cpu, self.isa, self.gpu, self.device, self.threads)
