"""What 'quantize' tells of its work."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from sdcompress.schema.base import Fraction, Frozen, Sha256
from sdcompress.schema.change import ExitChange
from sdcompress.schema.graphs import Precision

__all__ = ["Quantized"]


class Quantized(Frozen):
    """An artifact in another precision, and what that cost."""

    source: str
    artifact: str
    digest: Sha256
    precision: Precision
    max_drop: Fraction = Field(description="accuracy that every exit was allowed to lose")
    images: PositiveInt = Field(description="of the validation split")
    calibration_images: Annotated[int, Field(ge=0)] = Field(description="training images that gave ranges; 0: none")
    exits: tuple[ExitChange, ...]
    bytes_before: PositiveInt = Field(description="of the graphs")
    bytes_after: PositiveInt
    narrow: PositiveInt = Field(description="convolutions and products in the new precision")
    wide: Annotated[int, Field(ge=0)] = Field(description="those that are not: float32, beside fp8 also float16")
    dropped: tuple[str, ...] = Field(description="what was made for the old graphs and is not in the new artifact")
