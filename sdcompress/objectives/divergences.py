"""How far a student's outputs are from a teacher's, besides the task's own divergence. A teacher comes detached.

All are means over the batch, so that a loss does not change with the batch size; the T^2 of Hinton et al. (arXiv
1503.02531, section 2) keeps the gradients of the softened terms at one scale, so that weights mean the same at every T.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sdcompress.tasks import Task

__all__ = ["dkd", "soft_cross_entropy"]

_LOW = -1000.0  # added to a logit it leaves a probability of 0, and no infinity whose product with 0 is no number


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float, task: Task) -> Tensor:
    """``T^2 CE(student / T, softmax(teacher / T))``: the gradient of the task's divergence, its value plus an entropy.

    Args:
        student: [B, ...].
        teacher: [B, ...].
        temperature: T > 0; a task whose outputs are no logits ignores it.
        task: gives the cross-entropy, and the teacher's outputs as targets.
    """
    t = temperature if task.scaled_by_temperature else 1.0
    return t**2 * task.supervised_loss(student / t, task.soft_targets(teacher / t))


def dkd(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, *, target: float, other: float) -> Tensor:
    """Decoupled distillation: ``T^2 (alpha KL(b_t || b_s) + beta KL(q_t || q_s))``, mean over the batch.

    b: the label's probability against that of all other classes; q: the others among themselves; of softmax(z / T).
    With beta replaced by each sample's ``1 - p_t(y)``, and alpha = 1, it is ``kl``. Zhao et al., "Decoupled Knowledge
    Distillation", CVPR 2022, arXiv 2203.08679, equations 6 and 7.

    Args:
        student: [B, K].
        teacher: [B, K].
        labels: int64 [B].
        temperature: T > 0.
        target: alpha.
        other: beta.
    """
    away = _LOW * F.one_hot(labels, student.shape[1])
    binary, others = [], []
    for logits in (student, teacher):
        logs = F.log_softmax(logits / temperature, dim=1)
        binary.append(torch.cat([logs.gather(1, labels[:, None]), (logs + away).logsumexp(1, keepdim=True)], dim=1))
        others.append(F.log_softmax(logits / temperature + away, dim=1))
    of_label, of_others = (
        F.kl_div(ours, theirs, reduction="batchmean", log_target=True) for ours, theirs in (binary, others)
    )
    return temperature**2 * (target * of_label + other * of_others)
