"""DLB: the network of one step ago is the teacher, on the batch of the step before.

    L = mean over both halves CE(z, y) + alpha T^2 KL(p_before(x) || p(x)),   x: samples of the step before

Each step sees a new batch and, with a new augmentation, the batch of the step before. p_before is the prediction for
that batch one step ago. No gradient flows into it.

Source: Shen et al., "Self-Distillation from the Last Mini-Batch for Consistency Regularization", CVPR 2022, arXiv
2203.16172.

Defaults: ours. The public code (Meta-knowledge-Lab/DLB) has none for T and alpha.

Differences from that code: both halves are one batch to the network. There they are two, each with its own batch
statistics. With ``train.accumulate`` the last batch is the last of those that were added up.

Cost: twice the samples in each step, so **twice the compute**, as in the paper. For a fair comparison halve the epochs
and ``train.batch_size``: the steps, and the samples in a step, are then those of the others. The checkpoint holds 4 B K
bytes for B samples of a batch and K classes.

Measured: the terms and their units are those of the code. The row of benchmarks/cpu that is 5.4 points below label
smoothing has half of the epochs with whole batches, and so half of the steps. benchmarks/ablations has a row with half
batches, not yet measured.

Published: no figure could be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from sdcompress.methods._base import Context, Method, Needs, Positive, Weight
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch, View
from sdcompress.objectives.memory import LastBatch
from sdcompress.objectives.supervised import supervised_loss

__all__ = ["Dlb"]


@dataclass(frozen=True, kw_only=True)
class Dlb(Method):
    """The network of one step ago is the teacher; no exits.

    Attributes:
        kd_weight: alpha.
        temperature: T.
    """

    default_needs: ClassVar[Needs] = Needs(exits=False, mixing=False, view=View(samples="previous"))

    kd_weight: Weight = 1.0
    temperature: Positive = 3.0

    def state(self, context: Context) -> nn.Module:
        """Return the predictions for the last batch."""
        return LastBatch(context.batch, context.task.output_shape)

    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:
        """The terms ``ce`` and ``kd`` of the equation above."""
        second = batch.second_view
        (z,), (again,) = outputs.logits, second.outputs.logits
        # where nothing was remembered, a sample is its own teacher: the divergence and its gradient are 0
        before = state(second.samples.positions, again, batch.samples.positions, z)
        return {
            "ce": (supervised_loss(z, batch) + supervised_loss(again, batch.with_samples(second.samples))) / 2,
            "kd": self.kd_weight * batch.task.divergence(again, before, self.temperature),
        }
