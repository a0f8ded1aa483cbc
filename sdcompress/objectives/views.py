"""Further images that the network sees in the same step, and what it says of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Mix

__all__ = ["Second", "View"]


@dataclass(frozen=True)
class View:
    """Which images are seen besides the step's own; as many as those.

    Attributes:
        samples: whose images: ``own``, the step's samples; ``same_class``, for each sample another one of its class;
            ``previous``, the samples of the step before (in the first step its own).
        augmented: drawn anew; False: the very images of the step again, which only dropout tells apart.
        mixed: alpha of the Beta distribution with which they are mixed among themselves (mixup), 0 = off.
        gradient: whether gradients flow through what is said of them. If so both halves are one batch to the network;
            if not they are a batch of their own, which still moves the running statistics of batch norms.
    """

    samples: Literal["own", "same_class", "previous"] = "own"
    augmented: bool = True
    mixed: float = 0.0
    gradient: bool = True


@dataclass(frozen=True)
class Second:
    """What the network says of the further images.

    Attributes:
        outputs: all exits of them.
        labels: int64 [B].
        index: int64 [B], positions in the training split.
        mix: set when they are mixed; then ``labels`` and ``index`` are of the images before they were mixed.
    """

    outputs: Outputs
    labels: Tensor
    index: Tensor
    mix: Mix | None = None
