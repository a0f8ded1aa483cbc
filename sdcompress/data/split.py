"""Which sample belongs to which split: seeded, stratified by class, the same on every machine."""

from __future__ import annotations

import numpy as np

from sdcompress.data.samples import Labels

__all__ = ["hold_out", "stratified_order"]


def stratified_order(labels: Labels, *, seed: tuple[int, ...]) -> Labels:
    """A random order in which every beginning holds the classes in the proportions of the whole.

    The keys are raw output of PCG64, which numpy keeps the same over versions (NEP 19); ``Generator.permutation`` is
    not under that promise.

    Args:
        labels: int64 [N].
        seed: non-negative integers.

    Returns:
        int64 [N], a permutation of 0..N-1.
    """
    keys = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(len(labels))
    shuffled = np.argsort(keys, kind="stable")
    place = np.empty(len(labels), np.float64)
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return shuffled[np.argsort(place[shuffled], kind="stable")].astype(np.int64)


def hold_out(labels: Labels, count: int, *, seed: tuple[int, ...]) -> tuple[Labels, Labels]:
    """Part the positions of samples in two, stratified by class.

    Args:
        labels: int64 [N].
        count: how many to hold out; all, if there are fewer.
        seed: non-negative integers.

    Returns:
        The positions that stay and the ``count`` that are held out, each in ascending order.
    """
    order = stratified_order(labels, seed=seed)
    return np.sort(order[count:]), np.sort(order[:count])
