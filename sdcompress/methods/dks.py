"""DKS: every exit teaches every other exit.

    L = sum_i [ CE(z_i, y) + lambda sum_{j != i} KL(p_j || p_i) ],   p = softmax(z)

No gradient flows into p_j.

Source: Sun et al., "Deeply-supervised Knowledge Synergy", CVPR 2019, arXiv 1906.00675.

Defaults: all weights are 1, as in the authors' code (sundw2014/DKS).

Differences: the heads are those of the recipe. The paper's heads are branches of residual blocks, designed by hand for
each network, and much of its gain comes from them.

Cost: heads in training. It has no state.

Measured: the term and its units are those of the code, but for its epsilon of 1e-8. With ResNet-8 on CIFAR-100 at 16x16
it ends 2.7 points below deep supervision (benchmarks/cpu). With C exits an exit's target is, in effect, one part label
and C - 1 parts predictions of the others. There the others are weaker than the last exit by 3 and 5 points, and the
first exit gains nothing that shows. It does not slow down the start: the gradient in the backbone is 0.1 to 0.4 times
that of the labels. In a trained network it is 0.4 times (benchmarks/ablations). So the method is right, and seems of no
use where the exits are that unequal. A smaller weight is a row of benchmarks/ablations, not yet measured.

Published: error on CIFAR-100 with WRN-28-10: 17.24 % against 18.72 %. Error on ImageNet with ResNet-18: 28.68 % against
31.06 % (README of that repository).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import ClassVar

from torch import Tensor, nn

from sdcompress.methods._base import Method, Presets, Weight
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch
from sdcompress.objectives.exits import total
from sdcompress.objectives.supervised import supervised_losses

__all__ = ["Dks"]


@dataclass(frozen=True, kw_only=True)
class Dks(Method):
    """All exits are teachers of one another.

    Attributes:
        kd_weight: lambda, of each ordered pair of exits.
    """

    presets: ClassVar[Presets] = {"paper": {"kd_weight": 1.0}}

    kd_weight: Weight = 1.0

    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:  # noqa: ARG002
        """The terms ``ce`` and ``kd`` of the equation above."""
        divergence = batch.task.divergence
        pairs = permutations(outputs.logits, 2)
        return {
            "ce": total(supervised_losses(outputs.logits, batch)),
            "kd": self.kd_weight * total(divergence(student, teacher.detach(), 1.0) for student, teacher in pairs),
        }
