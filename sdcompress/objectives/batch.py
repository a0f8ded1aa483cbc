"""What a loss may know of a step besides the network's outputs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Batch", "Mix"]


@dataclass(frozen=True)
class Mix:
    """The other half of a mixed batch (mixup, CutMix): image i holds ``weight[i]`` of its own label.

    Attributes:
        labels: int64 [B], labels of the images that were mixed in.
        weight: float32 [B] in [0, 1], share of the image's own label.
    """

    labels: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Batch:
    """One training step's samples.

    Attributes:
        images: float [B, C, H, W], augmented and normalised.
        labels: int64 [B].
        index: int64 [B], position of each sample in the training split: the key of per-sample state.
        epoch: whole epochs done before this step.
        progress: share of the training done before this step, in [0, 1).
        smoothing: label smoothing of the recipe, 0 = off.
        mix: set when the images are mixed.
        final: [B, K], the label of the last exit where that is another than the other exits' (``eed+ps_kd``).
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    epoch: int = 0
    progress: float = 0.0
    smoothing: float = 0.0
    mix: Mix | None = None
    final: Tensor | None = None
