"""Run one backward pass before the training, to find unused parameters and impossible batches.

The network, the method's state and all buffers are afterwards what they were before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sdcompress.errors import RecipeError
from sdcompress.objectives.batch import Minibatch
from sdcompress.training.schedule import Clock
from sdcompress.training.step import TrainingStep

__all__ = ["describe_unused", "reached_parameters", "trained_parameters"]

# how torch's batch, instance and group norms begin to refuse what has no variance
_NO_VARIANCE = ("Expected more than 1 value per channel", "Expected more than 1 spatial element")


def trained_parameters(step: TrainingStep) -> set[str]:
    """Return the names of the parameters that are to be trained."""
    return {name for name, parameter in step.named_parameters() if parameter.requires_grad}


def reached_parameters(step: TrainingStep, primary: Minibatch, second: Minibatch | None, clock: Clock) -> set[str]:
    """Return the names of the parameters that get a gradient from the loss of one batch.

    Args:
        step: in training mode, neither compiled nor wrapped.
        primary: the samples.
        second: the method's further view of them.
        clock: which step of the training it pretends to be.

    Raises:
        RecipeError: if a norm gets a single value for each channel, which has no variance.
    """
    reached: set[str] = set()
    entered: list[tuple[str, torch.Size]] = []
    with _buffers_kept(step), ExitStack() as hooks:
        for name, parameter in step.named_parameters():
            if parameter.requires_grad:
                note = partial(_note_gradient, reached, name)
                handle = parameter.register_post_accumulate_grad_hook(note)  # type: ignore[no-untyped-call]  # likewise
                hooks.callback(handle.remove)
        for name, module in step.named_modules():
            hooks.callback(module.register_forward_pre_hook(partial(_note_module, entered, name)).remove)
        try:
            terms: dict[str, Tensor] = step(primary, second, clock)
        except ValueError as error:
            if not str(error).startswith(_NO_VARIANCE):
                raise
            raise _no_variance(step, primary, *entered[-1]) from error
        loss = torch.stack([*terms.values()]).sum()
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return reached


def describe_unused(names: set[str]) -> str:
    """Return a warning about parameters without a gradient, by their names in the network."""
    shown = sorted(name.removeprefix("net.").removeprefix("backbone.") for name in names)
    more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    return (
        f"{len(shown)} parameters take no part in the loss of the first batch: {', '.join(shown[:8])}{more}. Unless "
        "the loss comes to use them later, they are not trained."
    )


def _note_gradient(reached: set[str], name: str, parameter: Tensor) -> None:
    reached.add(name)
    parameter.grad = None  # at once, so that no second copy of the weights is held


def _note_module(entered: list[tuple[str, torch.Size]], name: str, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
    if inputs and isinstance(inputs[0], Tensor):
        entered.append((name, inputs[0].shape))


@contextmanager
def _buffers_kept(step: nn.Module) -> Iterator[None]:
    """Give every buffer its values back: running statistics, and what the method remembers."""
    kept = [
        (module, name, buffer, buffer.clone())
        for module in step.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        for module, name, buffer, values in kept:
            with torch.no_grad():
                buffer.copy_(values)
            setattr(module, name, buffer)  # some modules put a new tensor in its place


def _no_variance(step: TrainingStep, primary: Minibatch, name: str, shape: torch.Size) -> RecipeError:
    kind = type(step.get_submodule(name)).__name__
    where = name.removeprefix("net.").removeprefix("backbone.")
    size = " x ".join(map(str, shape))
    sizes = ", ".join(" x ".join(map(str, tensor.shape[1:])) for tensor in primary.inputs)
    return RecipeError(
        f"{kind} '{where}' gets {size} (batch x channels x the rest): one value for each channel has no "
        f"variance. The inputs are {sizes}, a process takes {len(primary.targets)} of them at a time.",
        allowed="at least 2 values for each channel",
        next_step="raise train.batch_size, lower train.accumulate or train.processes, or give larger inputs (images: "
        "modality.image_size)",
    )
