"""Entropic optimal transport between two sets of local features (Cuturi, arXiv 1306.0895).

It compares what two maps contain and where, without forcing the same cell onto the same cell.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["plan", "transport"]


def transport(student: Tensor, teacher: Tensor, *, epsilon: float = 0.05, iterations: int = 20) -> Tensor:
    """Cost of the best transport of the student's cells onto the teacher's, mean over the batch.

    ``sum_uv P_uv |s_u - t_v|^2 / D``, where P is the entropic plan between uniform weights. No gradient flows through
    P (envelope theorem: at the optimum the cost's gradient is that of its integrand).

    Args:
        student: [B, N, D].
        teacher: [B, M, D], detached.
        epsilon: strength of the entropy, relative to the mean cost of each sample, so that it does not depend on the
            scale of the features.
        iterations: Sinkhorn steps.
    """
    # The product form of cdist loses the small distances, which are the ones that the plan is made of.
    distance = torch.cdist(student, teacher, compute_mode="donot_use_mm_for_euclid_dist")
    cost = distance.square() / student.shape[2]
    return (plan(cost, epsilon=epsilon, iterations=iterations) * cost).sum((1, 2)).mean()


@torch.no_grad()
def plan(cost: Tensor, *, epsilon: float, iterations: int) -> Tensor:
    """The entropic transport plan between uniform weights, by Sinkhorn's iteration on logarithms.

    Args:
        cost: [B, N, M], not below 0.
        epsilon: relative to the mean of each sample's cost.
        iterations: pairs of updates; the columns' sums are exact after the last, the rows' converge.

    Returns:
        [B, N, M]; each sample sums to 1, each column to 1/M, each row to about 1/N.
    """
    rows, columns = cost.shape[1:]
    scale = (epsilon * cost.mean((1, 2), keepdim=True)).clamp_min(torch.finfo(cost.dtype).tiny)
    kernel = -cost / scale
    log_columns = torch.zeros_like(kernel[:, :1])
    for _ in range(iterations):
        log_rows = -math.log(rows) - torch.logsumexp(kernel + log_columns, 2, keepdim=True)
        log_columns = -math.log(columns) - torch.logsumexp(kernel + log_rows, 1, keepdim=True)
    return torch.exp(kernel + log_rows + log_columns)
