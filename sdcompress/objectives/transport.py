"""Entropic optimal transport between two sets of local features (Cuturi, arXiv 1306.0895).

It compares what two maps contain and where, without forcing the same cell onto the same cell.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["plan", "transport"]

_ABSORB = 10  # iterations between two absorptions


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
    cost = _squared_distances(student, teacher) / student.shape[2]
    return (plan(cost, epsilon=epsilon, iterations=iterations) * cost).sum((1, 2)).mean()


@torch.no_grad()
def plan(cost: Tensor, *, epsilon: float, iterations: int) -> Tensor:
    """Return the entropic transport plan between uniform weights, by Sinkhorn's iteration.

    The scalings are plain numbers, so that an iteration is two products of matrix and vector; every few of them they
    are absorbed into the logarithm of the kernel, where nothing overflows (Schmitzer, arXiv 1610.06519, section 3.1).

    Args:
        cost: [B, N, M], not below 0.
        epsilon: relative to the mean of each sample's cost.
        iterations: pairs of updates; the columns' sums are exact after the last, the rows' converge.

    Returns:
        [B, N, M]; each sample sums to 1, each column to 1/M, each row to about 1/N.
    """
    rows, columns = cost.shape[1:]
    tiny = torch.finfo(cost.dtype).tiny
    logs = -cost / (epsilon * cost.mean((1, 2), keepdim=True)).clamp_min(tiny)
    for axis in (2, 1):  # now each row and each column has a 1, and nothing is above it
        logs = logs - logs.amax(axis, keepdim=True)
    for start in range(0, iterations, _ABSORB):
        kernel = logs.exp()
        right = torch.ones_like(cost[:, 0, :, None])
        for _ in range(min(_ABSORB, iterations - start)):
            left = 1 / (rows * (kernel @ right).clamp_min(tiny))
            right = 1 / (columns * (kernel.mT @ left).clamp_min(tiny))
        logs = logs + left.log() + right.mT.log()
    return logs.exp()


def _squared_distances(one: Tensor, other: Tensor) -> Tensor:
    """|s_u - t_v|^2, [B, N, M], as products: about a common centre, so that little is lost where they are small."""
    centre = other.mean(1, keepdim=True)
    one, other = one - centre, other - centre
    squares = one.square().sum(2, keepdim=True) + other.square().sum(2, keepdim=True).mT
    return torch.baddbmm(squares, one, other.mT, alpha=-2).clamp_min(0)
