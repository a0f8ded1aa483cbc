"""Cross-entropy at the last exit alone: the control without exits.

    L = CE(z_C, y)

Cost: none beyond plain training.

Published: ResNet-18, CIFAR-100, crop and flip, 200 epochs, cosine, batch 64: 78.37 % at the last epoch (model card of
edadaltocg/resnet18_cifar100). Public baselines of this network range from 73.8 to 78.4 %. That is more than any method
here gains, so compare only with a baseline of the same recipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from sdcompress.methods._base import Method, Needs
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch
from sdcompress.objectives.supervised import supervised_loss

__all__ = ["Baseline"]


@dataclass(frozen=True, kw_only=True)
class Baseline(Method):
    """Plain training."""

    default_needs: ClassVar[Needs] = Needs(exits=False)

    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:  # noqa: ARG002
        """The term ``ce`` of the equation above."""
        (z,) = outputs.logits
        return {"ce": supervised_loss(z, batch)}
