"""What changes when the same network is computed in another way: in a lower precision, or by TensorRT engines."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat

from sdcompress.schema.base import Fraction, Frozen

__all__ = ["ExitChange", "PolicyChange"]


class ExitChange(Frozen):
    """One exit on samples with targets, before and after."""

    name: str
    metric_before: Fraction = Field(description="the metric of the task")
    metric_after: Fraction
    decision_changes: Annotated[int, Field(ge=0)] = Field(description="samples with another decision, better or worse")
    max_abs_diff: NonNegativeFloat = Field(description="largest difference of an output")


class PolicyChange(Frozen):
    """An artifact as its policy runs it, on samples with targets, before and after."""

    metric_before: Fraction = Field(description="the metric of the task")
    metric_after: Fraction
    exit_changes: Annotated[int, Field(ge=0)] = Field(description="samples that exit elsewhere")
    decision_changes: Annotated[int, Field(ge=0)] = Field(description="samples with another decision, better or worse")
    shares_before: tuple[Fraction, ...] = Field(description="share of the samples that exited at each exit")
    shares_after: tuple[Fraction, ...]
