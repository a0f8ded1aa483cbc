"""Compute the supervised loss of exits: the target of a sample, encoded by the task, mixed, smoothed and weighted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from sdcompress.objectives.batch import Batch

__all__ = ["encoded_targets", "last_target", "supervised_loss", "supervised_losses", "unweighted", "weighted"]


def encoded_targets(batch: Batch) -> Tensor:
    """The targets as the task's supervised loss takes them, [B, ...]; in classification a distribution for each sample.

    A mixed sample holds both targets in the share of its inputs (mixup, arXiv 1710.09412; CutMix, arXiv 1905.04899).
    With class weights a cross-entropy is the one that torch gives with ``weight=`` and probabilities.

    Args:
        batch: targets, task, smoothing, class weights and mix of this step.
    """
    samples, task = batch.samples, batch.task
    encoded = task.encode(samples.targets)
    if samples.mix is not None:
        encoded = samples.mix.blend(encoded, task.encode(samples.mix.targets))
    return weighted(task.smoothed(encoded, batch.smoothing), batch)


def weighted(encoded: Tensor, batch: Batch) -> Tensor:
    """Encoded targets [B, K, ...] with each class multiplied by its weight, where the recipe gives weights."""
    weights = batch.class_weights
    return encoded if weights is None else encoded * weights.view(-1, *[1] * (encoded.dim() - 2))


def unweighted(batch: Batch) -> Batch:
    """The same step without class weights: for targets that are mixed with others before they are weighted."""
    return batch if batch.class_weights is None else replace(batch, class_weights=None)


def last_target(batch: Batch, encoded: Tensor) -> Tensor:
    """The encoded target of the last exit: its own where it has one, else that of all exits.

    Args:
        batch: this step.
        encoded: [B, ...], of all exits.
    """
    return encoded if batch.last_target is None else batch.last_target


def supervised_loss(outputs: Tensor, batch: Batch) -> Tensor:
    """The task's supervised loss of outputs [B, ...] with the targets of a step: a scalar."""
    return batch.task.supervised_loss(outputs, encoded_targets(batch))


def supervised_losses(outputs: Sequence[Tensor], batch: Batch) -> Iterator[Tensor]:
    """The supervised loss of each exit with its target, shallow to deep: scalars.

    Args:
        outputs: E tensors [B, ...]; the last is the last exit's.
        batch: this step.
    """
    encoded = encoded_targets(batch)
    for z in outputs[:-1]:
        yield batch.task.supervised_loss(z, encoded)
    yield batch.task.supervised_loss(outputs[-1], last_target(batch, encoded))
