"""Batches of like lengths: the order of an epoch, changed within pools of batches, so that little is padding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["like_lengths"]

Positions = npt.NDArray[np.int64]
_POOL = 50  # batches that are sorted among themselves: enough for like lengths, few enough for a random epoch
_STREAM = 2  # of the seed; 1 is that of companions


def like_lengths(order: Positions, lengths: Positions, batch: int, *, seed: int, epoch: int) -> Positions:
    """Return the order of an epoch in which each batch holds samples of like lengths.

    The order is cut into pools. The samples of a pool are sorted by length and cut into batches, which come in a random
    order. So every sample stays in its part of the epoch, and a long batch is as likely to come first as a short one.

    Args:
        order: int64 [N], of an epoch; a part at the end that fills no batch stays as it is.
        lengths: int64, of all samples, by their position.
        batch: samples of a batch.
        seed: of the training.
        epoch: number of the epoch.

    Returns:
        int64 [N], the same positions.
    """
    rng = np.random.Generator(np.random.PCG64([seed, epoch, _STREAM]))
    whole, changed = len(order) // batch * batch, np.array(order, np.int64)
    for start in range(0, whole, _POOL * batch):
        pool = order[start : min(start + _POOL * batch, whole)]
        batches = pool[np.argsort(lengths[pool], kind="stable")].reshape(-1, batch)
        changed[start : start + len(pool)] = batches[rng.permutation(len(batches))].reshape(-1)
    return changed
