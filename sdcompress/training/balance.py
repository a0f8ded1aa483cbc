"""Classes with few images: weights of their labels in the loss, or as many places in an epoch as the others have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from sdcompress.data.samples import Dataset, Labels
from sdcompress.errors import RecipeError

__all__ = ["balanced_order", "class_weights"]


def class_weights(
    setting: Literal["none", "balanced"] | Sequence[float], dataset: Dataset
) -> npt.NDArray[np.float32] | None:
    """The weight of each class in the labels' cross-entropy, float32 [K]; None where all are 1.

    ``balanced`` is N / (K n_c) for a class with n_c of N training images, as scikit-learn has it: the mean over the
    images is 1.

    Raises:
        RecipeError: if a list has another length than there are classes.
    """
    if setting == "none":
        return None
    classes = len(dataset.outputs)
    if setting == "balanced":
        counts = np.bincount(dataset.train.targets, minlength=classes)
        # a class without images is never a label
        return (len(dataset.train) / (classes * np.maximum(counts, 1))).astype(np.float32)
    if len(setting) != classes:
        raise RecipeError(
            f"train.class_weights has {len(setting)} numbers.",
            allowed=f"balanced, or one for each of the {classes} classes of '{dataset.name}', in their order",
            next_step="--set train.class_weights=balanced",
        )
    return np.array(setting, np.float32)


def balanced_order(labels: Labels, *, seed: int, epoch: int) -> Labels:
    """The order of an epoch in which every class that has images comes equally often, to within one.

    An epoch is as long as ever. The images of a large class that have no place come in another epoch; those of a small
    one come again once all of them were there.

    Args:
        labels: int64 [N], of the training split.
        seed: of the order.
        epoch: number of the epoch.

    Returns:
        int64 [N], positions in the training split.
    """
    chance = np.random.Generator(np.random.PCG64([seed, epoch]))
    classes = chance.permutation(np.unique(labels))
    shares = np.full(len(classes), len(labels) // len(classes))
    shares[: len(labels) % len(classes)] += 1
    chosen = []
    for label, share in zip(classes, shares, strict=True):
        members = np.flatnonzero(labels == label)
        rounds = [chance.permutation(members) for _ in range(-(-int(share) // len(members)))]
        chosen.append(np.concatenate(rounds)[:share])
    return chance.permutation(np.concatenate(chosen))
