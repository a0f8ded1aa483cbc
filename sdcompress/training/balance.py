"""Balance strata, such as rare classes, by weights in the loss or by equal shares of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from sdcompress.data.samples import Dataset
from sdcompress.errors import RecipeError

__all__ = ["Strata", "balanced_order", "class_weights"]

Strata = npt.NDArray[np.int64]


def class_weights(
    setting: Literal["none", "balanced"] | Sequence[float], dataset: Dataset
) -> npt.NDArray[np.float32] | None:
    """Return the weight of each class in the supervised loss, float32 [K]; None where all are 1.

    ``balanced`` is N / (K n_c) for a class with n_c of N training samples (of masks: pixels), as scikit-learn has it:
    the mean over the samples is 1. A class without samples has 1.

    Raises:
        RecipeError: if a list has another length than there are classes, or the task's outputs are no classes.
    """
    if setting == "none":
        return None
    task, count = dataset.task, len(dataset.task.outputs)
    counts = task.class_counts(dataset.train.targets)
    if counts is None:
        raise RecipeError(
            f"train.class_weights is set, and the samples of the task '{task.record.name}' are in no classes.",
            allowed="none with this task",
            next_step="--set train.class_weights=none",
        )
    if setting == "balanced":
        # a class without samples is no label, but smoothing and remembered predictions give it a share of the target
        weights = np.where(counts > 0, counts.sum() / (count * np.maximum(counts, 1)), 1)
        return weights.astype(np.float32)
    if len(setting) != count:
        raise RecipeError(
            f"train.class_weights has {len(setting)} numbers.",
            allowed=f"balanced, or one for each of the {count} classes of '{dataset.name}', in their order",
            next_step="--set train.class_weights=balanced",
        )
    return np.array(setting, np.float32)


def balanced_order(strata: Strata, *, seed: int, epoch: int) -> Strata:
    """Return the order of an epoch in which every stratum that has samples comes equally often, to within one.

    An epoch is as long as ever. The samples of a large stratum that have no place come in another epoch; those of a
    small one come again once all of them were there.

    Args:
        strata: int64 [N], of the training split.
        seed: of the order.
        epoch: number of the epoch.

    Returns:
        int64 [N], positions in the training split.
    """
    rng = np.random.Generator(np.random.PCG64([seed, epoch]))
    kinds = rng.permutation(np.unique(strata))
    shares = np.full(len(kinds), len(strata) // len(kinds))
    shares[: len(strata) % len(kinds)] += 1
    chosen = []
    for kind, share in zip(kinds, shares, strict=True):
        members = np.flatnonzero(strata == kind)
        rounds = [rng.permutation(members) for _ in range(-(-int(share) // len(members)))]
        chosen.append(np.concatenate(rounds)[:share])
    return rng.permutation(np.concatenate(chosen))
