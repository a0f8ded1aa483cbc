"""The record of a quantisation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from sdcompress.schema.base import Fraction, Frozen, Sha256
from sdcompress.schema.change import ExitChange
from sdcompress.schema.graphs import Precision

__all__ = ["Quantized", "Speed"]


class Speed(Frozen):
    """The time of one sample to the last exit beside that of the source, in interleaved rounds on one machine."""

    threads: PositiveInt
    ms: PositiveFloat = Field(description="median in the new precision")
    source_ms: PositiveFloat = Field(description="median in fp32")
    speedup: PositiveFloat = Field(description="source_ms / ms; below 1: slower than fp32")
    low: PositiveFloat = Field(description="95 % interval over rounds")
    high: PositiveFloat
    verdict: Literal["faster", "slower", "no difference"]


class Quantized(Frozen):
    """An artifact in another precision, and what that cost."""

    source: str
    artifact: str
    digest: Sha256
    precision: Precision
    max_drop: Fraction = Field(description="of the metric, that every exit was allowed to lose")
    samples: PositiveInt = Field(description="of the validation split")
    calibration_samples: Annotated[int, Field(ge=0)] = Field(description="of training that gave ranges; 0: none")
    exits: tuple[ExitChange, ...]
    bytes_before: PositiveInt = Field(description="of the graphs")
    bytes_after: PositiveInt
    low_precision_ops: PositiveInt = Field(description="convolutions and products in the new precision")
    high_precision_ops: Annotated[int, Field(ge=0)] = Field(
        description="those that are not: float32, beside fp8 also float16"
    )
    dropped: tuple[str, ...] = Field(description="what was made for the old graphs and is not in the new artifact")
    speed: Speed | None = Field(None, description="on the machine that made it; null where it was not timed")
