"""How far a student's logits are from a teacher's. None of these stops gradients: a teacher comes detached.

All are means over the batch, so that a loss does not change with the batch size; the T^2 of Hinton et al. (arXiv
1503.02531, section 2) keeps the gradients of the softened terms at one scale, so that weights mean the same at every T.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["kl", "logits_mse", "soft_cross_entropy"]


def kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T^2 KL(softmax(teacher / T) || softmax(student / T))``: summed over classes, mean over the batch.

    For a large T it tends to half the mean squared difference of the logits, each centred at 0.

    Args:
        student: [B, K].
        teacher: [B, K].
        temperature: T > 0.
    """
    log_student = F.log_softmax(student / temperature, dim=1)
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T^2 CE(student / T, softmax(teacher / T))``: the gradient of ``kl``, its value plus the teacher's entropy.

    Args:
        student: [B, K].
        teacher: [B, K].
        temperature: T > 0.
    """
    return temperature**2 * F.cross_entropy(student / temperature, F.softmax(teacher / temperature, dim=1))


def logits_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of the logits, mean over batch and classes.

    Args:
        student: [B, K].
        teacher: [B, K].
    """
    return F.mse_loss(student, teacher)
