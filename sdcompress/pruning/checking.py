"""Check that a cut network computes what the whole one computes without the channels that were removed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sdcompress.models.kept_channels import keep_channels
from sdcompress.models.multiexit import MultiExit
from sdcompress.pruning.cuts import Cuts

__all__ = ["cut_network", "deviation", "random_inputs"]

_CONVOLUTION = nn.modules.conv._ConvNd  # noqa: SLF001 - its public name
_WHOLE_NORMS = (nn.LayerNorm, nn.GroupNorm)


def cut_network(net: MultiExit, cuts: Cuts) -> MultiExit:
    """Return a copy of a network with the cuts."""
    pruned = copy.deepcopy(net)
    keep_channels(pruned, cuts.record)
    return pruned


@torch.no_grad()
def deviation(net: MultiExit, cuts: Cuts, inputs: tuple[Tensor, ...]) -> float:
    """Return how far the outputs of the cut network are from those of the whole one without the removed channels.

    In the whole network every weight that multiplies a removed channel is 0, and norms over several channels leave it
    out. In exact arithmetic both give the same.

    Args:
        net: in evaluation mode; it is left as it was.
        cuts: of it.
        inputs: of it, each [B, ...].

    Returns:
        The largest difference over all exits, relative to the largest output; inf if the shapes differ.
    """
    pruned, masked = cut_network(net, cuts), copy.deepcopy(net)
    for (name, axis), kept in cuts.kept.items():
        owner, _, attribute = name.rpartition(".")
        module = masked.get_submodule(owner)
        if attribute == "weight" and axis == _input_axis(module):
            removed = sorted({*range(cuts.of[name, axis])} - {*kept})
            module.get_parameter(attribute).index_fill_(axis, torch.tensor(removed), 0.0)
    with _left_out(masked, pruned, cuts):
        expected = masked(*inputs).logits
    # max of Python would pass over a NaN
    return float(np.max([_distance(a, b) for a, b in zip(pruned(*inputs).logits, expected, strict=True)]))


def random_inputs(example: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return inputs like an example's, with normal floats, always the same; integers stay as they are."""
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(values.shape, generator=generator, dtype=values.dtype) if values.is_floating_point() else values
        for values in example
    )


def _distance(outputs: Tensor, expected: Tensor) -> float:
    if outputs.shape != expected.shape:
        return float("inf")
    return float((outputs - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


def _input_axis(module: nn.Module) -> int | None:
    """Return the axis of a weight along which its inputs' channels lie; None: it multiplies each channel by itself."""
    if isinstance(module, nn.Linear):
        return 1
    if isinstance(module, _CONVOLUTION) and module.groups < max(2, module.in_channels):
        return 0 if module.transposed else 1
    return None


@contextmanager
def _left_out(masked: MultiExit, pruned: MultiExit, cuts: Cuts) -> Iterator[None]:
    """Let the norms of the whole network compute their statistic without the removed channels."""
    handles = []
    for (name, _), kept in cuts.kept.items():
        owner, _, attribute = name.rpartition(".")
        module = masked.get_submodule(owner)
        if attribute == "weight" and isinstance(module, _WHOLE_NORMS):
            hook = partial(_normalise_kept, pruned.get_submodule(owner), torch.tensor(kept))
            handles.append(module.register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _normalise_kept(norm: nn.Module, kept: Tensor, module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    size = module.weight.numel()
    axis = inputs[0].dim() - 1 if isinstance(module, nn.LayerNorm) and inputs[0].shape[-1] == size else 1
    return torch.zeros_like(output).index_copy_(axis, kept, norm(inputs[0].index_select(axis, kept)))
