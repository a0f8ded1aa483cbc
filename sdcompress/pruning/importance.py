"""How important each removable unit of a network is, by Torch-Pruning's importances of groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch_pruning

from sdcompress.data.samples import Dataset
from sdcompress.pruning.channel_graph import ChannelGraph
from sdcompress.schema.recipe_compression import Prune

__all__ = ["add_gradients", "unit_scores"]

Scores = npt.NDArray[np.float64]

_IMPORTANCES: dict[str, Any] = {
    "magnitude": torch_pruning.importance.GroupMagnitudeImportance,
    "taylor": torch_pruning.importance.GroupTaylorImportance,
    "bn_scale": torch_pruning.importance.BNScaleImportance,
}


def unit_scores(graph: ChannelGraph, importance: str) -> tuple[Scores | None, ...]:
    """Return the scores of each group's units, float64 [U], with a mean of 1; None where the importance knows none.

    magnitude: squared L2 norms of all weights of a channel. taylor: ``|w dL/dw|``, "Importance Estimation for Neural
    Network Pruning" (Molchanov et al., CVPR 2019, arXiv 1906.10771). bn_scale: the factors of batch norms, "Network
    Slimming" (Liu et al., ICCV 2017, arXiv 1708.06519). Each is the mean over the layers of a group.

    Args:
        graph: for taylor, after ``add_gradients``.
        importance: one of these.
    """
    score = _IMPORTANCES[importance]()
    return tuple(_scores(score(graph.full_group(channels)), channels.units) for channels in graph.groups)


def add_gradients(graph: ChannelGraph, dataset: Dataset, settings: Prune, *, batch_size: int, seed: int) -> None:
    """Add up the gradients of the task's loss, summed over exits, on training samples; nothing else changes.

    Args:
        graph: its network keeps them.
        dataset: of the training; its samples are not augmented.
        settings: the number of batches.
        batch_size: samples of a batch.
        seed: of the order of samples.
    """
    task, modality, order = dataset.task, dataset.modality, np.random.default_rng(seed).permutation(len(dataset.train))
    graph.net.zero_grad()
    for number in range(min(settings.batches, -(-len(order) // batch_size))):
        index = np.sort(order[number * batch_size : (number + 1) * batch_size])
        arrays = modality.ordered(modality.collate(dataset.train.examples(index)))
        outputs = graph.net(*map(torch.from_numpy, arrays))
        targets = task.encode(torch.from_numpy(dataset.train.targets[index]))
        loss = torch.stack([task.supervised_loss(logits, targets) for logits in outputs.logits]).sum()
        torch.autograd.backward(loss)


def _scores(channels: torch.Tensor | None, units: tuple[tuple[int, ...], ...]) -> Scores | None:
    if channels is None or not units:
        return None
    means = np.array([channels[[*unit]].mean().item() for unit in units])
    # weights that are all 0 have no mean to be divided by
    scores: Scores = np.nan_to_num(means / means.mean() if means.mean() > 0 else means)
    return scores
