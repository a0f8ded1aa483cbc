"""Trained teacher: a finished network teaches all exits, such as the whole network those of its pruned one.

    L = sum_i [ (1 - lambda) CE(z_i, y) + lambda T^2 KL(p' || p_i) ],   p = softmax(z / T)

p' is the prediction of the teacher's last exit. No gradient flows into it. The teacher is the checkpoint that
``method.teacher`` names. It is in evaluation mode, sees the inputs of the network and does not change. It may have
another backbone and other exits or none, but needs the same data, split and outputs.

Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531, section 2.

Defaults: ours.

Differences: every exit learns, where the paper has one output, and the teacher is one network, where the paper also has
an ensemble.

Cost: heads in training, and a forward pass of the teacher without gradients. It has no state. A run that is resumed
needs the teacher where it was.

Measured: ResNet-18 of half width on CIFAR-100 at 32x32, pruned to half of its MACs: 71.3 % after 12 epochs, 72.2 %
after 20 more, and 71.5 % before (benchmarks/answers), one seed. ResNet-8 on 2,000 images of Fashion-MNIST, pruned
likewise, three seeds: 81.29 %, 81.70 % by ``self_distillation``, and 81.32 % without exits (benchmarks/pruning).

Published: no comparable figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from sdcompress.methods._base import Method, Needs, Positive, Share
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch
from sdcompress.objectives.exits import deepest, total
from sdcompress.objectives.supervised import supervised_losses

__all__ = ["TrainedTeacher"]


@dataclass(frozen=True, kw_only=True)
class TrainedTeacher(Method):
    """Another training's network is the teacher.

    Attributes:
        kd_weight: lambda, share of the teacher; the labels keep 1 - lambda.
        temperature: T.
    """

    default_needs: ClassVar[Needs] = Needs(teacher=True)

    kd_weight: Share = 0.5
    temperature: Positive = 3.0

    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:  # noqa: ARG002
        """The terms ``ce`` and ``kd`` of the equation above."""
        teacher, divergence = deepest(batch.teacher_outputs.logits), batch.task.divergence
        return {
            "ce": (1 - self.kd_weight) * total(supervised_losses(outputs.logits, batch)),
            "kd": self.kd_weight * total(divergence(z, teacher, self.temperature) for z in outputs.logits),
        }
