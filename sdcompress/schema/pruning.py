"""The record of pruning: which channels of a network were kept, and what each round of it removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from sdcompress.schema.base import Fraction, Frozen, Sha256
from sdcompress.schema.recipe_compression import Prune

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["UNDERSTOOD", "ChannelCuts", "KeptChannels", "NetworkCost", "Pruned", "PruningRound"]

UNDERSTOOD = 1
"""Version of the record that this version of sdcompress writes and reads."""


class NetworkCost(Frozen):
    """The cost of a network up to its last exit."""

    macs: PositiveInt = Field(description="multiply-accumulates for one sample")
    parameters: PositiveInt = Field(description="trainable numbers that the last exit depends on")
    ms: PositiveFloat | None = Field(None, description="of one sample by one thread; None: not measured")


class PruningRound(Frozen):
    """One call of ``prune``."""

    parent: Sha256 = Field(description="of the weights that were pruned")
    settings: Prune
    ratio: Fraction = Field(description="share of the prunable channels that was asked for")
    before: NetworkCost
    after: NetworkCost


class KeptChannels(Frozen):
    """The channels that some tensors keep, by their index in the network of the recipe."""

    of: PositiveInt = Field(description="channels of the network of the recipe")
    kept: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = Field(description="ascending")
    axes: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description="tensors with the axis that is cut, e.g. backbone.conv1.weight:0"
    )

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if any(a >= b for a, b in zip(self.kept, self.kept[1:], strict=False)) or self.kept[-1] >= self.of:
            raise ValueError(f"the kept channels must ascend and be below {self.of}")
        return self


class ChannelCuts(Frozen):
    """How the shape of a network differs from that of its recipe."""

    channels: tuple[KeptChannels, ...]
    sizes: dict[str, PositiveInt | tuple[PositiveInt, ...]] = Field(
        description="attributes of modules that say how many channels there are, e.g. backbone.conv1.out_channels"
    )
    heads_for: tuple[tuple[PositiveInt, ...], ...] | None = Field(
        None,
        description="shapes of the maps that the heads were made for before they were cut, the last of the deepest "
        "map; null: those of the whole network; empty: those of the pruned one",
    )

    def only(self, prefix: str) -> Self:
        """Return the same without what concerns tensors and modules of other prefixes."""
        channels = tuple(
            one.model_copy(update={"axes": axes})
            for one in self.channels
            if (axes := tuple(axis for axis in one.axes if axis.startswith(prefix)))
        )
        sizes = {name: size for name, size in self.sizes.items() if name.startswith(prefix)}
        return self.model_copy(update={"channels": channels, "sizes": sizes})

    def with_heads_for(self, shapes: tuple[tuple[int, ...], ...]) -> Self:
        """Return the same for heads that are made for maps of other shapes, see ``heads_for``."""
        return self.model_copy(update={"heads_for": shapes})


class Pruned(ChannelCuts):
    """The record of pruning in a checkpoint: the shape of its network, and how it came about."""

    version: Literal[1] = 1
    rounds: Annotated[tuple[PruningRound, ...], Field(min_length=1)] = Field(description="the first one first")

    @property
    def layers(self) -> tuple[tuple[str, int, int], ...]:
        """Return each layer that gives fewer outputs: its name, channels kept, channels before."""
        return tuple(
            (axis.removesuffix(".weight:0"), len(one.kept), one.of)
            for one in self.channels
            for axis in one.axes
            if axis.endswith(".weight:0") and f"{axis.removesuffix('.weight:0')}.num_features" not in self.sizes
        )
