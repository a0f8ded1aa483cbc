"""Accuracy of every exit while training, over all processes. The finished figures come from sdcompress.evaluation."""

from __future__ import annotations

import numpy as np
import torch
from lightning_fabric import Fabric

from sdcompress.data.samples import Samples
from sdcompress.modalities._geometry import normalise
from sdcompress.models.multiexit import MultiExit
from sdcompress.schema.manifest import Preprocess

__all__ = ["exit_accuracies"]


@torch.no_grad()  # not inference_mode: weights gathered in it could not be used outside of it
def exit_accuracies(
    net: MultiExit, samples: Samples, preprocess: Preprocess, fabric: Fabric, batch: int = 512
) -> dict[str, float]:
    """Share of right answers at each exit, in full precision, because that is what is exported.

    Args:
        net: the network; left in the mode it was in.
        samples: the split to measure on.
        preprocess: holds mean and std.
        fabric: the processes that share the work.
        batch: images at a time.
    """
    mode = net.training
    net.eval()
    right = torch.zeros(len(net.exit_names), dtype=torch.int64, device=fabric.device)  # MPS has no float64
    # as many in each process, because those that share the weights compute together; the last ones may be there twice
    mine = np.arange(-(-len(samples) // fabric.world_size)) * fabric.world_size + fabric.global_rank
    for start in range(0, len(mine), batch):
        index, counts = mine[start : start + batch] % len(samples), mine[start : start + batch] < len(samples)
        inputs = torch.from_numpy(normalise(samples.images(index), preprocess)).to(fabric.device)
        labels = torch.from_numpy(samples.labels[index]).to(fabric.device)
        counted = torch.from_numpy(counts).to(fabric.device)
        right += torch.stack([((logits.argmax(1) == labels) & counted).sum() for logits in net(inputs).logits])
    net.train(mode)
    total: list[int] = fabric.all_reduce(right, reduce_op="sum").tolist()
    return {name: count / len(samples) for name, count in zip(net.exit_names, total, strict=True)}
