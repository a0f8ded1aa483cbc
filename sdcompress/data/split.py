"""Which sample belongs to which split: seeded, stratified where the task has strata, the same on every machine."""

from __future__ import annotations

import numpy as np

from sdcompress.data.samples import Indices
from sdcompress.tasks import Array, Task

__all__ = ["hold_out", "of_each_stratum", "sample_order", "stratified_order"]


def sample_order(task: Task, targets: Array, *, seed: tuple[int, ...]) -> Indices:
    """Return a random order of samples: ``stratified_order`` where the task has strata, else a plain one.

    Args:
        task: says which strata there are.
        targets: [N, ...].
        seed: non-negative integers.

    Returns:
        int64 [N], a permutation of 0..N-1.
    """
    strata = task.strata(targets)
    return _shuffled(len(targets), seed) if strata is None else stratified_order(strata, seed=seed)


def stratified_order(strata: Indices, *, seed: tuple[int, ...]) -> Indices:
    """Return a random order in which every beginning holds the strata in the proportions of the whole.

    The keys are raw output of PCG64, which numpy keeps the same over versions (NEP 19); ``Generator.permutation`` is
    not under that promise.

    Args:
        strata: int64 [N].
        seed: non-negative integers.

    Returns:
        int64 [N], a permutation of 0..N-1.
    """
    shuffled = _shuffled(len(strata), seed)
    place = np.empty(len(strata), np.float64)
    for stratum in np.unique(strata):
        members = shuffled[strata[shuffled] == stratum]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return shuffled[np.argsort(place[shuffled], kind="stable")]


def hold_out(order: Indices, count: int) -> tuple[Indices, Indices]:
    """Part the positions of samples in two.

    Args:
        order: int64 [N], a permutation of 0..N-1.
        count: how many of its beginning to hold out; all, if there are fewer.

    Returns:
        The positions that stay and the ``count`` that are held out, each in ascending order.
    """
    return np.sort(order[count:]), np.sort(order[:count])


def of_each_stratum(strata: Indices, count: int, *, seed: tuple[int, ...]) -> Indices:
    """Choose some samples of each stratum; a smaller choice is part of a larger one with the same seed.

    Args:
        strata: int64 [N].
        count: of each stratum; all of a stratum that has fewer.
        seed: non-negative integers.

    Returns:
        Their positions in ascending order.
    """
    order = _shuffled(len(strata), seed)
    chosen = [order[strata[order] == stratum][:count] for stratum in np.unique(strata)]
    return np.sort(np.concatenate(chosen))


def _shuffled(count: int, seed: tuple[int, ...]) -> Indices:
    keys = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(count)
    return np.argsort(keys, kind="stable").astype(np.int64)
