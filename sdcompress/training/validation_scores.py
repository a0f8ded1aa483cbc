"""Compute the metric of every exit during training, over all processes (not the final evaluation)."""

from __future__ import annotations

import numpy as np
import torch
from lightning_fabric import Fabric

from sdcompress.data.lengths import sorted_by_length
from sdcompress.data.samples import Samples
from sdcompress.modalities import Modality
from sdcompress.models.multiexit import MultiExit
from sdcompress.models.outputs import Outputs
from sdcompress.tasks import Task
from sdcompress.training.feature_cache import FeatureCache

__all__ = ["exit_scores", "rows_of_a_pass"]

_BATCH = 512


@torch.no_grad()  # not inference_mode: weights gathered in it could not be used outside of it
def exit_scores(
    net: MultiExit,
    samples: Samples,
    task: Task,
    modality: Modality,
    *,
    fabric: Fabric,
    features: FeatureCache | None = None,
) -> dict[str, float]:
    """``1 - mean loss`` of each exit, by its name, in full precision, because that is what is exported.

    Args:
        net: the network; left in the mode it was in.
        samples: the split to measure on.
        task: gives decisions and their loss.
        modality: turns examples into inputs.
        fabric: the processes that share the work.
        features: what heads see of the samples, where the backbone need not run.
    """
    batch = rows_of_a_pass(task, net)
    mode = net.training
    net.eval()
    losses = np.zeros(len(net.exit_names))
    samples, _ = sorted_by_length(samples, modality)
    # as many in each process, because those that share the weights compute together; the last ones may be there twice
    mine = np.arange(-(-len(samples) // fabric.world_size)) * fabric.world_size + fabric.global_rank
    for start in range(0, len(mine), batch):
        index, counted = mine[start : start + batch] % len(samples), mine[start : start + batch] < len(samples)
        if features is not None:
            outputs: Outputs = net.from_head_inputs(*(values.to(fabric.device) for values in features.at(index)))
        else:
            arrays = modality.ordered(modality.collate(samples.examples(index)))
            outputs = net(*(torch.from_numpy(array).to(fabric.device) for array in arrays))
        targets = samples.targets[index]
        decisions = [task.decide(logits.float().cpu().numpy()) for logits in outputs.logits]
        losses += [task.loss(decision, targets)[counted].sum(dtype=np.float64) for decision in decisions]
    net.train(mode)
    total = torch.from_numpy(losses)
    if fabric.world_size > 1:
        total = fabric.all_reduce(total.to(fabric.device), reduce_op="sum")
    return {
        name: (len(samples) - loss) / len(samples) for name, loss in zip(net.exit_names, total.tolist(), strict=True)
    }


def rows_of_a_pass(task: Task, net: MultiExit) -> int:
    """Return the samples of a pass; fewer where each has many outputs."""
    return task.batch_size(_BATCH, len(net.exit_names))
