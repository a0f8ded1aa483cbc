"""The contract of a method: a frozen set of numbers, optional state, one call that returns named loss terms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch

__all__ = ["Context", "Method"]


@dataclass(frozen=True)
class Context:
    """What a method's state is sized by.

    Attributes:
        samples: number of training samples.
        classes: K.
        features: D_i of each exit, shallow to deep.
        maps: shape of each exit's map without the batch axis, shallow to deep: (C, H, W) or (N, C).
    """

    samples: int
    classes: int
    features: tuple[int, ...]
    maps: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A published method: fields are its hyper-parameters, the call is its loss.

    Attributes:
        exits: whether the network is trained with exits.
        mixes: whether mixup and CutMix may be on (per-sample memories forbid it).
    """

    exits: ClassVar[bool] = True
    mixes: ClassVar[bool] = True

    def state(self, context: Context) -> nn.Module:  # noqa: ARG002 - most methods need none
        """Adapters that are trained, tables that are remembered: kept in the checkpoint, never exported."""
        return nn.Module()

    @abstractmethod
    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:
        """The loss as named, already weighted scalar terms; their sum is minimised.

        Args:
            outputs: all exits of this step (one exit if ``exits`` is False).
            batch: this step's samples.
            state: what ``state`` built, in training mode.
        """
