"""Seeds derived from (seed, epoch, step, rank): no generator state is kept.

A stopped run needs no generator state to go on: the permutation of an epoch and the augmentation and dropout of a step
depend on (seed, epoch, step, rank) and on nothing else.
"""

from __future__ import annotations

import numpy as np

__all__ = ["permutation", "step_seed"]


def permutation(samples: int, *, seed: int, epoch: int) -> np.ndarray:
    """Return the order in which an epoch visits the training images: int64 [samples]."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(samples)


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed of one step in one process, below 2**63 (torch takes no more)."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))
