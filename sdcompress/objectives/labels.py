"""The label of a sample as a distribution: one-hot, smoothed, mixed. Cross-entropy takes it as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from sdcompress.objectives.batch import Batch

__all__ = ["final_target", "label_losses", "targets", "unweighted", "weighted"]


def targets(batch: Batch, classes: int) -> Tensor:
    """What the labels say, for ``torch.nn.functional.cross_entropy(logits, targets)``.

    Smoothing follows Szegedy et al. (arXiv 1512.00567, section 7): ``(1 - s) * one_hot + s / K``. A mixed image holds
    both labels in the share of its pixels (mixup, arXiv 1710.09412; CutMix, arXiv 1905.04899). With class weights the
    cross-entropy is the one that torch gives with ``weight=`` and probabilities.

    Args:
        batch: labels, smoothing, class weights and mix of this step.
        classes: K.

    Returns:
        float32 [B, K]; each row sums to 1, before each class is multiplied by its weight.
    """
    labels = F.one_hot(batch.labels, classes).float()
    if batch.mix is not None:
        share = batch.mix.weight.unsqueeze(1)
        labels = share * labels + (1 - share) * F.one_hot(batch.mix.labels, classes).float()
    return weighted((1 - batch.smoothing) * labels + batch.smoothing / classes, batch)


def weighted(probabilities: Tensor, batch: Batch) -> Tensor:
    """Labels with each class multiplied by its weight, where the recipe gives weights; [B, K]."""
    return probabilities if batch.class_weights is None else probabilities * batch.class_weights


def unweighted(batch: Batch) -> Batch:
    """The same step without class weights: for labels that are mixed with others before they are weighted."""
    return batch if batch.class_weights is None else replace(batch, class_weights=None)


def final_target(batch: Batch, labels: Tensor) -> Tensor:
    """The label of the last exit: its own where it has one, else that of all exits.

    Args:
        batch: this step.
        labels: [B, K], of all exits.
    """
    return labels if batch.final is None else batch.final


def label_losses(logits: Sequence[Tensor], batch: Batch) -> Iterator[Tensor]:
    """The cross-entropy of each exit with its label, shallow to deep: scalars.

    Args:
        logits: E tensors [B, K].
        batch: labels, smoothing and mix of this step.
    """
    y = targets(batch, logits[-1].shape[1])
    for z in logits[:-1]:
        yield F.cross_entropy(z, y)
    yield F.cross_entropy(logits[-1], final_target(batch, y))
