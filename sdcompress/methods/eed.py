"""Exit-Ensemble Distillation: the mean of all exits teaches every exit, the last included.

    L = sum_i [ CE(z_i, y) + lambda MSE(z_i, mean_j z_j) + beta D(A_i F_i, mean_j A_j F_j) ]

MSE is the mean over batch and classes. D is the squared difference where either feature is positive, as a mean over
batch and features. A_i is a linear map where F_i is not as wide as F_C, and the identity elsewhere. No gradient flows
into the means. For a large T, twice T^2 KL is the MSE of centred logits. So lambda = 1 here is like 2 in units of T^2
KL.

Source: Lee and Lee, "Students are the Best Teacher: Exit-Ensemble Distillation with Multi-Exits", arXiv 2104.00299.

Defaults: of the authors' code (hjdw2/Exit-Ensemble-Distillation), where the labels keep weight 1 beside the
distillation.

Differences: the code's alternative of KL with T = 3 is left out. Heads may be narrower than the backbone, so there are
adapters A_i. A weak first exit weakens the mean, and so the teacher.

Cost: heads and adapters in training. The adapters are in the checkpoint.

Measured: the terms and their units are those of the code. With ResNet-8 on CIFAR-100 at 16x16 it ends 3.7 points below
deep supervision (benchmarks/cpu). There the mean of the exits is a worse classifier than the last exit, which it
teaches: 31.10 against 31.42 % under deep supervision. In the backbone the gradients of both distances are at most 0.4
times that of the labels each. From the 60th step on they point against it, with cosines of -0.18 to -0.34. In a trained
network they are 0.3 and 0.2 times (benchmarks/ablations); those of ``byot`` are at most 0.03 in the first 120 steps. So
the method is right, and its published weights seem too large where exits differ as much. Smaller weights are rows of
benchmarks/ablations, not yet measured.

Published: no figure could be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from sdcompress.methods._base import Context, Method, Presets, Weight
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch
from sdcompress.objectives.exits import ensemble, total
from sdcompress.objectives.features import Adapters, l2, masked_l2
from sdcompress.objectives.supervised import supervised_losses

__all__ = ["Eed"]


@dataclass(frozen=True, kw_only=True)
class Eed(Method):
    """The mean of the exits is the teacher.

    Attributes:
        logit_weight: lambda, in units of MSE.
        feature_weight: beta; 0 leaves the adapters out.
    """

    presets: ClassVar[Presets] = {"paper": {"logit_weight": 1.0, "feature_weight": 1.0}}

    logit_weight: Weight = 1.0
    feature_weight: Weight = 1.0

    def state(self, context: Context) -> nn.Module:
        """Return the adapters of the features, if they are compared."""
        return Adapters(context.features) if self.feature_weight else nn.Module()

    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:
        """The terms ``ce``, ``kd`` and ``feature`` of the equation above."""
        teacher = ensemble(outputs.logits)
        terms = {
            "ce": total(supervised_losses(outputs.logits, batch)),
            "kd": self.logit_weight * total(l2(z, teacher) for z in outputs.logits),
        }
        if self.feature_weight:
            features = state(outputs.features)
            terms["feature"] = self.feature_weight * total(masked_l2(f, ensemble(features)) for f in features)
        return terms
