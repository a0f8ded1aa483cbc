"""The recipe's sections ``prune`` and ``compress``: which channels to remove, and which ways to deploy to try."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat

from sdcompress.schema.base import Frozen
from sdcompress.schema.pruning_target import checked_target
from sdcompress.schema.recipe_values import EachOnce, PositiveInt

__all__ = ["Compress", "Prune"]


class Prune(Frozen):
    """Which channels to remove, and how many."""

    target: Annotated[str, AfterValidator(checked_target)] = Field(
        "macs=50%",
        description="what the network to its last exit may cost: macs, parameters, or ms that are measured here; a "
        "share of the present cost or a number, e.g. macs=50%, parameters=1.2M, ms=0.8",
    )
    importance: Literal["magnitude", "taylor", "bn_scale"] = Field(
        "magnitude",
        description="of channels: the norm of their weights; the first-order change of the loss; the scale of their "
        "batch norm",
    )
    ranking: Literal["global", "layer"] = Field(
        "global", description="global: the least important channels of all layers; layer: the same share of each"
    )
    round_to: PositiveInt = Field(
        16, description="a layer keeps a multiple of so many channels; of a half, a quarter ... where it is narrow"
    )
    batches: PositiveInt = Field(10, description="of training samples, for taylor")
    normalised: bool = Field(
        False,
        description="also remove channels that a layer norm or group norm computes a statistic of, such as the width "
        "of a transformer",
    )


class Compress(Frozen):
    """The search for the fastest artifact that keeps the metric, or for the most accurate one that is fast enough."""

    max_drop: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.01, description="of the metric, that the artifact may lose against the whole network; not with target_ms"
    )
    target_ms: PositiveFloat | None = Field(
        None, description="largest mean of one sample: the smallest drop that keeps it is searched; null: max_drop"
    )
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = Field(
        0.95, description="with which the drop of the best is certified, over all finalists together"
    )
    precisions: EachOnce[str] = Field(
        ("uint8",), description="of 'sdcompress list precisions', tried beside float32; []: float32 alone"
    )
    policies: EachOnce[str] = Field(
        (), description="of 'sdcompress list policies', tried for cascades; default: that of calibrate.policy"
    )
    ensembles: bool = Field(
        True, description="also try cascades whose exits average with the exits before them, where the task can"
    )
    finalists: Annotated[int, Field(ge=1, le=50)] = Field(
        6, description="candidates that are built, certified and measured"
    )
