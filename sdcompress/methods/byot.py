"""Be Your Own Teacher: the last exit's softened predictions and features teach every shallower exit.

    L = CE(z_C, y) + sum_{i<C} [ (1 - lambda) CE(z_i, y) + lambda T^2 KL(p_C || p_i) + beta D(A_i F_i, F_C) ]

p_i = softmax(z_i / T). D is the squared difference where either feature is positive, as a mean over batch and features.
A_i is a linear map where F_i is not as wide as F_C, and the identity elsewhere. No gradient flows into p_C and F_C.

Source: Zhang et al., "Be Your Own Teacher: Improve the Performance of Convolutional Neural Networks via Self
Distillation", ICCV 2019, arXiv 1905.08094.

Defaults: the paper gives no numbers. These are from the public code luanyunteng/pytorch-be-your-own-teacher: T = 3 and
lambda = 0.1. Its feature weight of 1e-6 multiplies a sum over batch and features. That is 1e-6 * 128 * 512 = 0.066 per
element at its batch and width. mmrazor has lambda = 0.3.

Differences from that code: the last exit's cross-entropy weighs 1 (there 0.9). Heads may be narrower than the backbone,
so there are adapters A_i. Its soft cross-entropy differs from KL by a constant.

Cost: heads and adapters in training. The adapters are in the checkpoint.

Measured: with ResNet-8 on CIFAR-100 at 16x16 the gradients of both distillation terms in the backbone are at most 0.03
times that of the labels in the first 120 steps. So its defaults are almost deep supervision there, and it ends 0.6
points above it, within the noise (benchmarks/cpu).

Published: ResNet-18, CIFAR-100, crop and flip, 200 epochs, exits 1 to 4: 66.57 / 74.69 / 78.04 / 78.73 % (README of
that repository; best epoch on the test set).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from sdcompress.methods._base import Context, Method, Positive, Presets, Share, Weight
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch
from sdcompress.objectives.exits import deepest, total
from sdcompress.objectives.features import Adapters, masked_l2
from sdcompress.objectives.supervised import supervised_losses

__all__ = ["Byot"]


@dataclass(frozen=True, kw_only=True)
class Byot(Method):
    """The deepest exit is the teacher.

    Attributes:
        kd_weight: lambda, share of the distillation; the labels of the shallower exits keep 1 - lambda.
        temperature: T.
        feature_weight: beta; 0 leaves the adapters out.
    """

    presets: ClassVar[Presets] = {"paper": {"kd_weight": 0.1, "temperature": 3.0, "feature_weight": 0.066}}

    kd_weight: Share = 0.1
    temperature: Positive = 3.0
    feature_weight: Weight = 0.066

    def state(self, context: Context) -> nn.Module:
        """Return the adapters of the features, if they are compared."""
        return Adapters(context.features) if self.feature_weight else nn.Module()

    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:
        """The terms ``ce``, ``kd`` and ``feature`` of the equation above."""
        *shallow_ce, last_ce = supervised_losses(outputs.logits, batch)
        teacher = deepest(outputs.logits)
        divergence = batch.task.divergence
        terms = {
            "ce": (1 - self.kd_weight) * total(shallow_ce) + last_ce,
            "kd": self.kd_weight * total(divergence(z, teacher, self.temperature) for z in outputs.logits[:-1]),
        }
        if self.feature_weight:
            features = state(outputs.features)
            terms["feature"] = self.feature_weight * total(masked_l2(f, deepest(features)) for f in features[:-1])
        return terms
