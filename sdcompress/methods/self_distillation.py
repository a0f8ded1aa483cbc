"""Self-Distillation (TPAMI): the last exit's soft labels teach exits with attention heads.

    L = CE(z_C, y) + sum_{i<C} [ (1 - lambda) CE(z_i, y) + lambda T^2 CE(z_i / T, p_C) + beta |A_i F_i - F_C|^2 / D ]

p_C = softmax(z_C / T), and D is the width of F_C. A_i is a linear map where F_i is not as wide as F_C, and the identity
elsewhere. No gradient flows into p_C and F_C. The method's other half is its head: set ``exits.head: attention`` in the
recipe.

Source: Zhang, Bao and Ma, "Self-Distillation: Towards Efficient and Compact Neural Networks", TPAMI 2021, doi
10.1109/TPAMI.2021.3067100. It joins BYOT (arXiv 1905.08094) and SCAN (arXiv 1906.03951).

Differences from the authors' code (ArchipLab-LinfengZhang/pytorch-self-distillation-final): lambda is multiplied by
T^2. There it is not, so its 0.3 is lambda = 0.033 here, with labels at 0.7. mmrazor has T^2 and 0.3. The feature loss
is a mean of squares over every shallow exit. There it is 0.03 times the unsquared norm of the whole batch, which grows
with the batch, and an index leaves out the deepest of the shallow exits. It is off by default. In that repository's
issue 3 it adds about 1 point to exits 1 and 2 and costs 0.2 to 0.4 at exits 3, 4 and the ensemble. So it is worth a try
where shallow exits are deployed.

Cost: heads in training. With a feature weight also adapters, which are then in the checkpoint.

Published: ResNet-18, CIFAR-100, AutoAugment and Cutout, 250 epochs, without feature loss, exits 1 to 4 and ensemble:
75.28 / 78.18 / 81.30 / 81.71 / 82.57 % (a user's single run in issue 3 of that repository; best epoch on the test set).
The augmentation is on in all of its figures, so a baseline needs the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from sdcompress.methods._base import Context, Method, Positive, Share, Weight
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch
from sdcompress.objectives.divergences import soft_cross_entropy
from sdcompress.objectives.exits import deepest, total
from sdcompress.objectives.features import Adapters, l2
from sdcompress.objectives.supervised import supervised_losses

__all__ = ["SelfDistillation"]


@dataclass(frozen=True, kw_only=True)
class SelfDistillation(Method):
    """The deepest exit is the teacher of soft labels.

    Attributes:
        kd_weight: lambda, share of the soft labels; the labels of the shallower exits keep 1 - lambda.
        temperature: T.
        feature_weight: beta; 0 leaves the adapters out.
    """

    kd_weight: Share = 0.3
    temperature: Positive = 3.0
    feature_weight: Weight = 0.0

    def state(self, context: Context) -> nn.Module:
        """Return the adapters of the features, if they are compared."""
        return Adapters(context.features) if self.feature_weight else nn.Module()

    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:
        """The terms ``ce``, ``kd`` and ``feature`` of the equation above."""
        *shallow_ce, last_ce = supervised_losses(outputs.logits, batch)
        teacher = deepest(outputs.logits)
        terms = {
            "ce": (1 - self.kd_weight) * total(shallow_ce) + last_ce,
            "kd": self.kd_weight
            * total(soft_cross_entropy(z, teacher, self.temperature, batch.task) for z in outputs.logits[:-1]),
        }
        if self.feature_weight:
            features = state(outputs.features)
            terms["feature"] = self.feature_weight * total(l2(f, deepest(features)) for f in features[:-1])
        return terms
