"""The label of a sample as a distribution: one-hot, smoothed, mixed. Cross-entropy takes it as it is."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sdcompress.objectives.batch import Batch

__all__ = ["targets"]


def targets(batch: Batch, classes: int) -> Tensor:
    """What the labels say, for ``torch.nn.functional.cross_entropy(logits, targets)``.

    Smoothing follows Szegedy et al. (arXiv 1512.00567, section 7): ``(1 - s) * one_hot + s / K``. A mixed image holds
    both labels in the share of its pixels (mixup, arXiv 1710.09412; CutMix, arXiv 1905.04899).

    Args:
        batch: labels, smoothing and mix of this step.
        classes: K.

    Returns:
        float32 [B, K]; each row sums to 1.
    """
    labels = F.one_hot(batch.labels, classes).float()
    if batch.mix is not None:
        share = batch.mix.weight.unsqueeze(1)
        labels = share * labels + (1 - share) * F.one_hot(batch.mix.labels, classes).float()
    return (1 - batch.smoothing) * labels + batch.smoothing / classes
