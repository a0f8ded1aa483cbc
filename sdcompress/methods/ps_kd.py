"""PS-KD: each sample's prediction of the epoch before softens its label, more and more.

    L = CE(z, (1 - a) y + a p_before(x)),   a = alpha * share of the training done

p_before(x) is the network's prediction for this sample in the epoch before, under that epoch's augmentation. It is y
until a sample was seen once. No gradient flows into it.

Source: Kim et al., "Self-Knowledge Distillation with Progressive Refinement of Targets", ICCV 2021, arXiv 2006.12000.

Differences from the authors' code (lgcnsai/PS-KD-Pytorch): a grows with each step, while there it grows with each epoch
as (epoch + 1) / epochs. The table of predictions lies on the training device and is in every checkpoint, while there
only the best checkpoint has it. Mixup and CutMix are refused, because a mixed sample has no prediction to remember.

Cost: the table holds 4 N K bytes for N training samples and K classes: 20 MB for CIFAR-100, 5 GB for ImageNet.

Measured: the target and its schedule are those of the code. With ResNet-8 on CIFAR-100 at 16x16 it ends 2.2 points
below label smoothing (benchmarks/cpu). Where a prediction is what it was an epoch before, the gradient of the logits is
(1 - a) (p - y), with p the prediction. So the labels pull less and less, at the end with a fifth. That holds back a
network that fits everything, and probably costs accuracy in one that does not yet fit its labels, as there. A smaller
alpha is a row of benchmarks/ablations, not yet measured.

Published: PreAct-ResNet-18, CIFAR-100, 300 epochs: error 20.82 % and ECE 1.77 %, against 24.18 % and 11.84 % without,
and an error of 20.94 % with label smoothing (README of that repository; best epoch on the test set). An independent
rerun over three seeds gives 77.41 % against 75.86 +- 0.09 % for ResNet-18, and no gain for ResNet-34 and -50 (README of
KangWooya/What_Do_Students_Learn).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from sdcompress.methods._base import Context, LabelMethod, Needs, Presets, Share
from sdcompress.objectives.batch import Batch
from sdcompress.objectives.memory import SampleMemory
from sdcompress.objectives.supervised import encoded_targets, unweighted, weighted

__all__ = ["PsKd"]


@dataclass(frozen=True, kw_only=True)
class PsKd(LabelMethod):
    """The network of one epoch ago is the teacher; no exits.

    Attributes:
        alpha: share of the past prediction at the end of the training.
    """

    default_needs: ClassVar[Needs] = Needs(tasks=("classification",), exits=False, mixing=False)
    presets: ClassVar[Presets] = {"paper": {"alpha": 0.8}}

    alpha: Share = 0.8

    def state(self, context: Context) -> nn.Module:
        """Return the last prediction for every training sample."""
        return SampleMemory(context.samples, len(context.task.outputs))

    def label(self, logits: Tensor, batch: Batch, state: nn.Module) -> Tensor:
        """``(1 - a) y + a p_before``, [B, K]; remembers what is predicted now."""
        y = encoded_targets(unweighted(batch))
        before: Tensor = state(batch.samples.positions, F.softmax(logits, dim=1), y)
        a = self.alpha * batch.progress
        return weighted((1 - a) * y + a * before, batch)
