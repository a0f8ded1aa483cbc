"""What changes when the same network is computed in another way: in a lower precision, or by TensorRT engines."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat

from sdcompress.schema.base import Fraction, Frozen

__all__ = ["ExitChange", "PolicyChange"]


class ExitChange(Frozen):
    """One exit on labelled images, before and after."""

    name: str
    accuracy_before: Fraction
    accuracy_after: Fraction
    changed: Annotated[int, Field(ge=0)] = Field(description="images with another answer, better or worse")
    max_abs: NonNegativeFloat = Field(description="largest difference of a logit")


class PolicyChange(Frozen):
    """An artifact as its policy runs it, on labelled images, before and after."""

    accuracy_before: Fraction
    accuracy_after: Fraction
    moved: Annotated[int, Field(ge=0)] = Field(description="images that leave at another exit")
    changed: Annotated[int, Field(ge=0)] = Field(description="images with another answer, better or worse")
    shares_before: tuple[Fraction, ...] = Field(description="share of the images that left at each exit")
    shares_after: tuple[Fraction, ...]
