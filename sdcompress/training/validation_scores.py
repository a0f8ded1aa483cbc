"""Compute the metric of every exit during training, over all processes (not the final evaluation)."""

from __future__ import annotations

import numpy as np
import torch
from lightning_fabric import Fabric

from sdcompress.data.lengths import sorted_by_length
from sdcompress.data.samples import Samples
from sdcompress.modalities import Modality
from sdcompress.models.multiexit import MultiExit
from sdcompress.tasks import Task

__all__ = ["exit_scores"]


@torch.no_grad()  # not inference_mode: weights gathered in it could not be used outside of it
def exit_scores(
    net: MultiExit, samples: Samples, task: Task, modality: Modality, *, fabric: Fabric, batch: int = 512
) -> dict[str, float]:
    """``1 - mean loss`` of each exit, by its name, in full precision, because that is what is exported.

    Args:
        net: the network; left in the mode it was in.
        samples: the split to measure on.
        task: gives decisions and their loss.
        modality: turns examples into inputs.
        fabric: the processes that share the work.
        batch: samples at a time; fewer where each has many outputs.
    """
    batch = task.batch_size(batch, len(net.exit_names))
    mode = net.training
    net.eval()
    losses = np.zeros(len(net.exit_names))
    samples, _ = sorted_by_length(samples, modality)
    # as many in each process, because those that share the weights compute together; the last ones may be there twice
    mine = np.arange(-(-len(samples) // fabric.world_size)) * fabric.world_size + fabric.global_rank
    for start in range(0, len(mine), batch):
        index, counted = mine[start : start + batch] % len(samples), mine[start : start + batch] < len(samples)
        arrays = modality.ordered(modality.collate(samples.examples(index)))
        inputs = (torch.from_numpy(array).to(fabric.device) for array in arrays)
        targets = samples.targets[index]
        decisions = [task.decide(outputs.float().cpu().numpy()) for outputs in net(*inputs).logits]
        losses += [task.loss(decision, targets)[counted].sum(dtype=np.float64) for decision in decisions]
    net.train(mode)
    total = torch.from_numpy(losses)
    if fabric.world_size > 1:
        total = fabric.all_reduce(total.to(fabric.device), reduce_op="sum")
    return {
        name: (len(samples) - loss) / len(samples) for name, loss in zip(net.exit_names, total.tolist(), strict=True)
    }
