"""The kinds of numbers that methods have."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

__all__ = ["Count", "Positive", "Share", "Weight"]

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
