"""Self-Distillation (TPAMI): the last exit's soft labels teach exits with attention heads.

    L = CE(z_C, y) + sum_{i<C} [ (1 - lambda) CE(z_i, y) + lambda T^2 CE(z_i / T, p_C) + beta |A_i F_i - F_C|^2 / D ]

p_C = softmax(z_C / T); A_i is linear where F_i is not as wide as F_C, else the identity. No gradient flows into p_C and
F_C. The method's other half is the head: ``exits.head: attention`` in the recipe.

Zhang, Bao and Ma, "Self-Distillation: Towards Efficient and Compact Neural Networks", TPAMI 2021,
doi 10.1109/TPAMI.2021.3067100; it joins BYOT (arXiv 1905.08094) and SCAN (arXiv 1906.03951).

Differences from the authors' code (ArchipLab-LinfengZhang/pytorch-self-distillation-final): lambda is multiplied by
T^2 (there it is not: its 0.3 is lambda = 0.033 here, with labels at 0.7; mmrazor multiplies, with 0.3); the feature
loss is a mean of squares (there 0.03 times the unsquared norm of the whole batch, which grows with the batch) and
covers every exit (there an index leaves out the deepest of the shallow ones); it is off by default: in that
repository's issue 3 it adds about 1 point to exits 1 and 2 and costs 0.2 to 0.4 at exits 3, 4 and the ensemble.

Published: ResNet-18, CIFAR-100, AutoAugment and Cutout, 250 epochs, without feature loss, exits 1 to 4 and ensemble:
75.28 / 78.18 / 81.30 / 81.71 / 82.57 % (a user's run in issue 3 of that repository; best epoch on the test set). Its
augmentation is on in all of its figures: a baseline needs the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from sdcompress.methods._base import Context, Method
from sdcompress.methods._fields import Positive, Share, Weight
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch
from sdcompress.objectives.divergences import soft_cross_entropy
from sdcompress.objectives.exits import total
from sdcompress.objectives.features import Adapters, l2
from sdcompress.objectives.labels import label_losses
from sdcompress.objectives.teachers import deepest

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
        """The adapters of the features, if they are compared."""
        return Adapters(context.features) if self.feature_weight else nn.Module()

    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:
        """The terms ``ce``, ``kd`` and ``feature`` of the equation above."""
        *shallow_ce, last_ce = label_losses(outputs.logits, batch)
        teacher = deepest(outputs.logits)
        terms = {
            "ce": (1 - self.kd_weight) * total(shallow_ce) + last_ce,
            "kd": self.kd_weight * total(soft_cross_entropy(z, teacher, self.temperature) for z in outputs.logits[:-1]),
        }
        if self.feature_weight:
            features = state(outputs.features)
            terms["feature"] = self.feature_weight * total(l2(f, deepest(features)) for f in features[:-1])
        return terms
