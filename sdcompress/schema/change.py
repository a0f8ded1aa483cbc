"""The records of comparisons: a file with its checkpoint, and a network before and after a change."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from sdcompress.schema.base import Fraction, Frozen, Sha256
from sdcompress.schema.graphs import Precision

__all__ = ["DecisionChange", "ExitChange", "ParityRecord", "PolicyChange", "Quantized", "Speed"]


class ParityRecord(Frozen):
    """How far the exported graphs are from the checkpoint, for one exit."""

    exit: str
    samples: PositiveInt
    batches: tuple[PositiveInt, ...]
    max_abs_diff: Annotated[float, Field(ge=0)] = Field(description="largest absolute difference of an output")
    tolerance: PositiveFloat
    flips: Annotated[int, Field(ge=0)] = Field(
        description="samples with another decision; after an export only those whose outputs differ by more than the "
        "tolerance, after quantising all of them"
    )


class DecisionChange(Frozen):
    """The metric and the decisions on samples with targets, before and after."""

    metric_before: Fraction = Field(description="the metric of the task")
    metric_after: Fraction
    decision_changes: Annotated[int, Field(ge=0)] = Field(description="samples with another decision, better or worse")
    changed_share: Fraction = Field(
        description="share of change_unit with another decision: of samples, or of elements such as pixels"
    )
    change_unit: str = Field("samples", description="what changed_share is a share of")

    @property
    def changes_text(self) -> str:
        """How much of the decisions has changed: samples as count and share, anything else as a share alone."""
        if self.change_unit == "samples":
            return f"{self.decision_changes} ({self.changed_share:.2%})"
        return f"{self.changed_share:.2%} of {self.change_unit}"


class ExitChange(DecisionChange):
    """One exit, before and after."""

    name: str
    max_abs_diff: NonNegativeFloat = Field(description="largest difference of an output")


class PolicyChange(DecisionChange):
    """An artifact as its policy runs it, before and after."""

    exit_changes: Annotated[int, Field(ge=0)] = Field(description="samples that exit elsewhere")
    shares_before: tuple[Fraction, ...] = Field(description="share of the samples that exited at each exit")
    shares_after: tuple[Fraction, ...]


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
