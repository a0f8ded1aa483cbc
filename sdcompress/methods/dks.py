"""DKS: every exit teaches every other.

    L = sum_i [ CE(z_i, y) + lambda sum_{j != i} KL(p_j || p_i) ],   p = softmax(z)

No gradient flows into p_j.

Sun et al., "Deeply-supervised Knowledge Synergy", CVPR 2019, arXiv 1906.00675.

Defaults: all weights 1, as in the authors' code (sundw2014/DKS).

Differences: the heads. The paper's are branches of residual blocks, made for each network by hand, and much of its gain
comes from them; ours are those of the recipe.

Published: WRN-28-10, CIFAR-100: error 17.24 % against 18.72 %; ResNet-18, ImageNet: 28.68 % against 31.06 % (README of
that repository).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

from torch import Tensor, nn

from sdcompress.methods._base import Method
from sdcompress.methods._fields import Weight
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch
from sdcompress.objectives.divergences import kl
from sdcompress.objectives.exits import total
from sdcompress.objectives.labels import label_losses

__all__ = ["Dks"]


@dataclass(frozen=True, kw_only=True)
class Dks(Method):
    """All exits are teachers of one another.

    Attributes:
        kd_weight: lambda.
    """

    kd_weight: Weight = 1.0

    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:  # noqa: ARG002
        """The terms ``ce`` and ``kd`` of the equation above."""
        pairs = permutations(outputs.logits, 2)
        return {
            "ce": total(label_losses(outputs.logits, batch)),
            "kd": self.kd_weight * total(kl(student, teacher.detach(), 1.0) for student, teacher in pairs),
        }
