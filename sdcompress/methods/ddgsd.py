"""DDGSD: two augmentations of a sample teach each other.

    L = mean over both views CE(z, y) + lambda T^2 [ KL(p_1 || p_2) + KL(p_2 || p_1) ] / 2
        + mu |mean F_1 - mean F_2|^2 / D

p_v = softmax(z_v / T) of view v. F_v is its feature, whose mean is over the batch, and D its width. No gradient flows
into the first argument of a KL. The last term is the squared maximum mean discrepancy of a linear kernel.

Source: Xu and Liu, "Data-Distortion Guided Self-Distillation for Deep Neural Networks", AAAI 2019, doi
10.1609/aaai.v33i01.33015565.

Defaults: lambda and T are ours. mu is from winycg/Self-KD-Lib.

Differences: the discrepancy of Self-KD-Lib compares one scalar, the mean over the batch and all features, and is about
0. Ours compares features. It depends on how a batch is split; of the other terms of this package only the cross-entropy
of masks does, which is a mean over the pixels that are not void.

Cost: a second view of the samples, **twice the compute of every step**. It has no state.

Published: PreAct-ResNet-18, CIFAR-100: 76.61 % against 76.24 % without and 78.72 % with label smoothing (README of
winycg/Self-KD-Lib; best epoch on the test set).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from sdcompress.methods._base import Method, Needs, Positive, Weight
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch, View
from sdcompress.objectives.features import l2
from sdcompress.objectives.supervised import supervised_loss

__all__ = ["Ddgsd"]


@dataclass(frozen=True, kw_only=True)
class Ddgsd(Method):
    """The other view is the teacher; no exits.

    Attributes:
        kd_weight: lambda.
        temperature: T.
        feature_weight: mu.
    """

    default_needs: ClassVar[Needs] = Needs(exits=False, mixing=False, view=View())

    kd_weight: Weight = 1.0
    temperature: Positive = 3.0
    feature_weight: Weight = 0.0005

    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:  # noqa: ARG002
        """The terms ``ce``, ``kd`` and ``feature`` of the equation above."""
        other, samples = batch.second_view
        (one,), (two,) = outputs.logits, other.logits
        divergence, t = batch.task.divergence, self.temperature
        terms = {
            # masks are augmented with their images, so that each view has its own
            "ce": (supervised_loss(one, batch) + supervised_loss(two, batch.with_samples(samples))) / 2,
            "kd": self.kd_weight * (divergence(two, one.detach(), t) + divergence(one, two.detach(), t)) / 2,
        }
        if self.feature_weight:
            terms["feature"] = self.feature_weight * l2(*(seen.features[-1].mean(0) for seen in (outputs, other)))
        return terms
