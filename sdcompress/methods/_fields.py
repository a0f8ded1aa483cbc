"""The kinds of numbers that methods have."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

__all__ = ["Count", "Decay", "Factor", "Part", "Positive", "Several", "Share", "Weight"]

Count = Annotated[int, Field(ge=1)]
Decay = Annotated[float, Field(gt=0.0, lt=1.0)]
Factor = Annotated[float, Field(ge=1.0, allow_inf_nan=False)]
Part = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Several = Annotated[int, Field(ge=2)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
