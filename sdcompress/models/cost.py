"""Compute the cost of each exit, MACs and parameters of the network truncated at it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sdcompress.models._trace import MacCounter, evaluating
from sdcompress.models.inputs import example_inputs
from sdcompress.models.multiexit import MultiExit
from sdcompress.schema import graphs

__all__ = ["TruncatedCost", "costs", "tap_shares"]


@dataclass(frozen=True)
class TruncatedCost:
    """The cost of the network truncated at one exit; heads of other exits are not counted.

    Attributes:
        macs: multiply-accumulates for one sample, of 16 positions along an axis that varies, such as tokens.
        parameters: trainable numbers that the exit's outputs depend on.
    """

    macs: int
    parameters: int


def costs(net: MultiExit, inputs: Sequence[graphs.Tensor]) -> tuple[TruncatedCost, ...]:
    """Return the cost of each exit, shallow to deep, measured on one forward pass.

    Args:
        net: the network; it is left as it was.
        inputs: the tensors of its modality.
    """
    parts = {name: net.backbone.get_submodule(name) for name in net.taps}
    parts |= {f"head {name}": head for name, head in zip(net.taps, net.heads, strict=True)}
    example = example_inputs(inputs, 1, device=next(net.parameters()).device)
    with evaluating(net), _differentiable(net), MacCounter() as counter:
        with _noting({**parts, "backbone": net.backbone}, counter) as spent:
            outputs = net(*example)
        parameters = [_parameters_of(logits) for logits in outputs.logits]
    macs, before = [], spent["backbone"]
    for name in net.taps:
        macs.append(spent[name] + spent[f"head {name}"] - before)
        before = spent[f"head {name}"]
    macs.append(spent["backbone"])
    return tuple(TruncatedCost(*pair) for pair in zip(macs, parameters, strict=True))


def tap_shares(net: MultiExit, inputs: Sequence[graphs.Tensor]) -> tuple[float, ...]:
    """Return the share of the backbone's MACs, 0..1, that is spent where each exit before the last looks.

    Args:
        net: the network; it is left as it was.
        inputs: the tensors of its modality.
    """
    parts = {name: net.backbone.get_submodule(name) for name in net.taps}
    example = example_inputs(inputs, 1, device=next(net.parameters()).device)
    parts["backbone"] = net.backbone
    with evaluating(net), torch.no_grad(), MacCounter() as counter, _noting(parts, counter) as spent:
        net(*example)
    return tuple(spent[name] / max(1, spent["backbone"]) for name in net.taps)


@contextmanager
def _noting(modules: dict[str, nn.Module], counter: MacCounter) -> Iterator[dict[str, int]]:
    """What has been spent when each module returns."""
    spent: dict[str, int] = {}

    def note(key: str, *_: Any) -> None:
        spent[key] = counter.total

    handles = [module.register_forward_hook(partial(note, key)) for key, module in modules.items()]
    try:
        yield spent
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _differentiable(net: nn.Module) -> Iterator[None]:
    """Every parameter leaves a trace in the outputs' history, frozen ones too."""
    frozen = [parameter for parameter in net.parameters() if not parameter.requires_grad]
    try:
        with torch.enable_grad():
            net.requires_grad_(True)
            yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _parameters_of(output: Tensor) -> int:
    """Return the number of trainable numbers in a tensor's history."""
    seen, parameters, waiting = set(), set(), [output.grad_fn]
    while waiting:
        step = waiting.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        leaf = getattr(step, "variable", None)  # AccumulateGrad, the end of a history, holds its parameter
        if isinstance(leaf, nn.Parameter):
            parameters.add(leaf)
        waiting += [following for following, _ in step.next_functions]
    return sum(parameter.numel() for parameter in parameters)
