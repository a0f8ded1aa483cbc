"""Label smoothing at the last exit alone: the control of every method without exits.

    L = CE(z_C, (1 - epsilon) y + epsilon / K)

Source: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, arXiv 1512.00567,
section 7.

Differences: none. ``epsilon`` replaces ``train.label_smoothing`` of the recipe.

Cost: none beyond plain training.

Published: PreAct-ResNet-18, CIFAR-100: 78.72 % against 76.24 % without (README of winycg/Self-KD-Lib; best epoch on the
test set). That is better than eight of the ten self-distillation methods of the same table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from sdcompress.methods._base import LabelMethod, Presets, Share
from sdcompress.objectives.batch import Batch
from sdcompress.objectives.supervised import encoded_targets

__all__ = ["LabelSmoothing"]


@dataclass(frozen=True, kw_only=True)
class LabelSmoothing(LabelMethod):
    """Plain training on smoothed labels.

    Attributes:
        epsilon: share of the label that is spread over all classes.
    """

    presets: ClassVar[Presets] = {"paper": {"epsilon": 0.1}}

    epsilon: Share = 0.1

    def label(self, logits: Tensor, batch: Batch, state: nn.Module) -> Tensor:  # noqa: ARG002
        """``(1 - epsilon) y + epsilon / K``, [B, K]."""
        return encoded_targets(replace(batch, smoothing=self.epsilon))
