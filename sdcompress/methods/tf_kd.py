"""Tf-KD with a constructed teacher, which is the same as label smoothing.

    L = CE(z, (1 - alpha) y + alpha q),   q = softmax(v / T),   v_y = a, v_k = (1 - a) / (K - 1) elsewhere

q is one number at the label and another everywhere else. So the target is uniform label smoothing with

    epsilon = alpha K q_other,   q_other = 1 / (K - 1 + exp((a - (1 - a) / (K - 1)) / T))

With the defaults and 100 classes, q is 0.0105 at the label and 0.00999 elsewhere, and epsilon is 0.0999. A test checks
that the two losses agree. The method is here as evidence of that.

Source: Yuan et al., "Revisiting Knowledge Distillation via Label Smoothing Regularization", CVPR 2020, arXiv
1909.11723: its teacher-free variant "reg". Its variant "self" is ``born_again`` with two generations.

Defaults: a = 0.99 and T = 20 of the authors' code (yuanli2333/Teacher-free-Knowledge-Distillation).

Differences: none from the code for 100 classes, where its multiplier of 100 undoes its mean over classes. Like the
code, this softens the teacher's probabilities as if they were logits, while the paper's text says otherwise. The code's
KL differs from this cross-entropy by a constant.

Cost: none beyond plain training.

Published: ResNet-18, CIFAR-100: 76.61 % against 76.24 % without and 78.72 % with label smoothing (README of
winycg/Self-KD-Lib; best epoch on the test set). "An honest baseline gives 77.96 to 78.05" (issue 20 of the authors'
repository).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdcompress.methods._base import LabelMethod, Needs, Positive, Presets, Share
from sdcompress.objectives.batch import Batch
from sdcompress.objectives.supervised import encoded_targets, unweighted, weighted

__all__ = ["TfKd"]


@dataclass(frozen=True, kw_only=True)
class TfKd(LabelMethod):
    """A constructed distribution is the teacher; no exits.

    Attributes:
        kd_weight: alpha, share of the teacher in the label.
        correct: a, the teacher's probability of the label before softening.
        temperature: T.
    """

    default_needs: ClassVar[Needs] = Needs(tasks=("classification",), exits=False)
    presets: ClassVar[Presets] = {"paper": {"correct": 0.99, "temperature": 20.0}}

    kd_weight: Share = 0.1
    correct: Share = 0.99
    temperature: Positive = 20.0

    def label(self, logits: Tensor, batch: Batch, state: nn.Module) -> Tensor:  # noqa: ARG002
        """``(1 - alpha) y + alpha q``, [B, K]; the teacher of a mixed sample is mixed."""
        classes = logits.shape[1]
        y = encoded_targets(unweighted(batch))
        given = torch.eye(classes, device=y.device) * (self.correct - (1 - self.correct) / (classes - 1))
        teachers = F.softmax((given + (1 - self.correct) / (classes - 1)) / self.temperature, dim=1)
        return weighted((1 - self.kd_weight) * y + self.kd_weight * y @ teachers, batch)
