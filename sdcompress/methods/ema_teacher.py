"""EMA teacher: the moving average of the network's own weights teaches all exits, by decoupled distillation.

    L = sum_i [ CE(z_i, y) + lambda T^2 ( alpha KL(b' || b_i) + beta KL(q' || q_i) ) ]

z' is the last exit of a network whose weights are the exponential moving average of this one's. b is the probability of
the label against that of all others. q are the probabilities of the others among themselves. Both are of softmax(z /
T). No gradient flows into z'.

Source: the teacher is from Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017, arXiv
1703.01780. The divergence is from Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022, arXiv 2203.08679,
equation 7. With exits, the two are the training half of "SAFE-KD" (arXiv 2602.03043).

Defaults: ours. alpha = beta = 1 decouples both parts without weighting them. The paper has beta from 1 to 8 for
separate teachers.

Differences: there is no consistency loss between exits, which SAFE-KD has. The teacher sees the inputs of the network,
while in Mean Teacher it has an augmentation of its own. As there, it normalises by the statistics of the batch. lambda
does not rise, while it does there and in the code of decoupled distillation (megvii-research/mdistiller, over 20 of 240
epochs). The decay rises from 0.1 in the first steps, so that the random start is soon forgotten. Mixup and CutMix are
refused, because a mixed sample has no single label to decouple.

Cost: heads, and a forward pass of the teacher without gradients, about a third more compute. The checkpoint also holds
the average.

Measured: before 2026-11-29 the teacher normalised by running statistics. Those trail the weights while the learning
rate is high, the teacher's logits grew and the network followed: ResNet-8 on CIFAR-100 at 16x16 ended 8.1 points below
deep supervision (benchmarks/cpu). At the 120th step the labels' loss was 27.9, twice that of guessing. With the
statistics of the batch it is 11.8 there, and deep supervision has 12.0. Seed 0 then ends at 31.02 %, and deep
supervision at 30.96 % (benchmarks/ablations): it no longer runs away. One seed does not tell whether it gains or loses.

Published: no comparable figure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from sdcompress.methods._base import Decay, Method, Needs, Positive, Weight
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch
from sdcompress.objectives.divergences import dkd
from sdcompress.objectives.exits import deepest, total
from sdcompress.objectives.supervised import supervised_losses

__all__ = ["EmaTeacher"]


@dataclass(frozen=True, kw_only=True)
class EmaTeacher(Method):
    """The network's average over its past is the teacher.

    Attributes:
        kd_weight: lambda.
        temperature: T.
        target_weight: alpha, weight of the label against the others.
        other_weight: beta, weight of the others among themselves.
        decay: decay of the average in each step.
    """

    default_needs: ClassVar[Needs] = Needs(tasks=("classification",), mixing=False)

    kd_weight: Weight = 1.0
    temperature: Positive = 4.0
    target_weight: Weight = 1.0
    other_weight: Weight = 1.0
    decay: Decay = 0.999

    @property
    def needs(self) -> Needs:
        """Return the average; and whole samples, which have one label to decouple."""
        return replace(self.default_needs, average=self.decay)

    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:  # noqa: ARG002
        """The terms ``ce`` and ``kd`` of the equation above."""
        teacher = deepest(batch.teacher_outputs.logits)
        weights = {"target": self.target_weight, "other": self.other_weight}
        return {
            "ce": total(supervised_losses(outputs.logits, batch)),
            "kd": self.kd_weight
            * total(dkd(z, teacher, batch.samples.targets, self.temperature, **weights) for z in outputs.logits),
        }
