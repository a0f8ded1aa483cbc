"""EMA teacher: the average of the network's own weights teaches all exits, by decoupled distillation.

    L = sum_i [ CE(z_i, y) + lambda T^2 ( alpha KL(b' || b_i) + beta KL(q' || q_i) ) ]

z' = the last exit of a network whose weights are the exponential moving average of this one's. b = probability of the
label against that of all others, q = probabilities of the others among themselves, both of softmax(z / T). No gradient
flows into z'.

Teacher: Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017, arXiv 1703.01780. Divergence:
Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022, arXiv 2203.08679, equation 7. Together with exits they are
the training half of "SAFE-KD" (arXiv 2602.03043).

Defaults: ours. alpha = beta = 1 decouples and weighs nothing up; the paper's beta is 1 to 8 for separate teachers.

Differences: no consistency loss between exits (SAFE-KD has one). A third more compute: the teacher is passed forward
only, in evaluation mode. The decay rises from 0.1 in the first steps, so that the random start is soon forgotten.

Published: no comparable figure.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from sdcompress.methods._base import Method, Needs
from sdcompress.methods._fields import Decay, Positive, Weight
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch
from sdcompress.objectives.divergences import dkd
from sdcompress.objectives.exits import total
from sdcompress.objectives.labels import label_losses
from sdcompress.objectives.teachers import deepest

__all__ = ["EmaTeacher"]


@dataclass(frozen=True, kw_only=True)
class EmaTeacher(Method):
    """The network's average over its past is the teacher.

    Attributes:
        kd_weight: lambda.
        temperature: T.
        target_weight: alpha, of the label against the others.
        other_weight: beta, of the others among themselves.
        decay: of the average, per step.
    """

    kd_weight: Weight = 1.0
    temperature: Positive = 4.0
    target_weight: Weight = 1.0
    other_weight: Weight = 1.0
    decay: Decay = 0.999

    @property
    def needs(self) -> Needs:
        """The average; and whole images, which have one label to decouple."""
        return Needs(mixing=False, average=self.decay)

    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:  # noqa: ARG002
        """The terms ``ce`` and ``kd`` of the equation above."""
        teacher = deepest(batch.taught().logits)
        weights = {"target": self.target_weight, "other": self.other_weight}
        return {
            "ce": total(label_losses(outputs.logits, batch)),
            "kd": self.kd_weight
            * total(dkd(z, teacher, batch.labels, self.temperature, **weights) for z in outputs.logits),
        }
