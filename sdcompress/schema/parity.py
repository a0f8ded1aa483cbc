"""How far a file is from the checkpoint, as the manifest says it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from sdcompress.schema.base import Frozen

__all__ = ["ParityRecord"]


class ParityRecord(Frozen):
    """How far the exported graphs are from the checkpoint, for one exit."""

    exit: str
    samples: PositiveInt
    batches: tuple[PositiveInt, ...]
    max_abs_diff: Annotated[float, Field(ge=0)] = Field(description="largest absolute difference of an output")
    tolerance: PositiveFloat
    flips: Annotated[int, Field(ge=0)] = Field(description="samples whose decision changed")
