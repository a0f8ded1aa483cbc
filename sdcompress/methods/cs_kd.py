"""CS-KD: the prediction for another sample of the same class is the teacher.

    L = CE(z(x), y) + lambda T^2 KL(p(x') || p(x)),   p = softmax(z / T)

x' is another training sample of the class of x. No gradient flows into p(x').

Source: Yun et al., "Regularizing Class-wise Predictions via Self-knowledge Distillation", CVPR 2020, arXiv 2003.13964.

Defaults: of the authors' code (alinlab/cs-kd) for CIFAR-100. It has lambda = 3 for fine-grained data sets.

Differences from that code: x' is never x itself, unless x is the only sample of its class.

Cost: a forward pass of x' in each step, about a third more compute. It has no state.

Published: an independent rerun on CIFAR-100 over three seeds gives 76.38 % against 75.86 +- 0.09 % for ResNet-18. It
loses for larger networks: 76.73 against 77.61 for ResNet-34, 76.31 against 78.48 for ResNet-50, and 76.53 against 79.03
for DenseNet-121. That rerun has a weight decay of 1e-4 for CS-KD and 5e-4 for the baselines (README of
KangWooya/What_Do_Students_Learn).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from sdcompress.methods._base import Method, Needs, Positive, Presets, Weight
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch, View
from sdcompress.objectives.supervised import supervised_loss

__all__ = ["CsKd"]


@dataclass(frozen=True, kw_only=True)
class CsKd(Method):
    """Another sample of the class is the teacher; no exits.

    Attributes:
        kd_weight: lambda.
        temperature: T.
    """

    default_needs: ClassVar[Needs] = Needs(
        tasks=("classification",),
        exits=False,
        mixing=False,
        view=View(samples="same_stratum", gradient=False),
    )

    presets: ClassVar[Presets] = {"paper": {"kd_weight": 1.0, "temperature": 4.0}}

    kd_weight: Weight = 1.0
    temperature: Positive = 4.0

    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:  # noqa: ARG002
        """The terms ``ce`` and ``kd`` of the equation above."""
        (z,), (other,) = outputs.logits, batch.second_view.outputs.logits
        return {
            "ce": supervised_loss(z, batch),
            "kd": self.kd_weight * batch.task.divergence(z, other.detach(), self.temperature),
        }
