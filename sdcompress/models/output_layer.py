"""Find the module of a backbone that computes the network's outputs from the final feature."""

from __future__ import annotations

import inspect
from functools import partial

import torch
from torch import Tensor, nn

from sdcompress.errors import RecipeError
from sdcompress.models._trace import evaluating

__all__ = ["classifier_tensors", "feature_size", "output_layer"]

# What networks raise for inputs that are too small, or of another size than they were built for.
_SIZE_ERRORS = (RuntimeError, ValueError, AssertionError)


def output_layer(backbone: nn.Module, inputs: tuple[Tensor, ...], outputs: tuple[int, ...]) -> str:
    """Return the name of the last Linear or convolution that a forward pass calls and that gives the outputs.

    A backbone that declares its classifier (timm's ``get_classifier``) is believed.

    Args:
        backbone: the network; it is left as it was.
        inputs: of the network, each [B, ...].
        outputs: shape of one sample's outputs, such as (K,); the layer has as many channels as its first axis.

    Raises:
        RecipeError: if the backbone cannot take the inputs, gives outputs of another shape, or ends in something else.
    """
    _check_arguments(backbone, len(inputs))
    called: list[str] = []
    handles = [
        module.register_forward_pre_hook(partial(_note, called, name))
        for name, module in backbone.named_modules()
        if _channels(module) == outputs[0]
    ]
    try:
        with evaluating(backbone), torch.no_grad():
            returned = backbone(*inputs)
    except _SIZE_ERRORS as error:
        raise _cannot_take(backbone, inputs, error) from error
    finally:
        for handle in handles:
            handle.remove()
    expected = (len(inputs[0]), *outputs)
    if not isinstance(returned, Tensor) or returned.shape != expected:
        shape = tuple(returned.shape) if isinstance(returned, Tensor) else type(returned).__name__
        raise RecipeError(
            f"This backbone returns {shape} for {expected[0]} samples, where the task's outputs have shape {outputs}.",
            allowed=f"one tensor, {expected}",
            next_step="let its last layer have as many outputs as the task, and return only that",
        )
    declared = _declared(backbone)
    if not called:
        raise RecipeError(
            "This backbone does not end in a linear layer, so there is no final feature to learn from.",
            allowed=f"a torch.nn.Linear, or a 1 x 1 torch.nn.Conv2d, with {outputs[0]} outputs",
            next_step="end it with one, or choose another backbone in model.name",
        )
    return ([name for name in called if backbone.get_submodule(name) in declared] or called)[-1]


def _check_arguments(backbone: nn.Module, count: int) -> None:
    """Refuse a network that cannot be called with its inputs alone."""
    try:
        signature = inspect.signature(backbone.forward)
    except ValueError:  # written in C
        return
    try:
        signature.bind(*[None] * count)
    except TypeError as error:
        raise RecipeError(
            f"The forward{signature} of this backbone cannot be called with the inputs alone: {error}.",
            allowed=f"{count} input(s) by position, as the modality orders them; further arguments with defaults",
            next_step="wrap it in a module of your own that takes the inputs and fills in the rest",
        ) from error


def _cannot_take(backbone: nn.Module, inputs: tuple[Tensor, ...], error: Exception) -> RecipeError:
    sizes = ", ".join(" x ".join(map(str, tensor.shape[1:])) for tensor in inputs)
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if isinstance(error, NotImplementedError):
        return RecipeError(
            f"This backbone cannot be called: {reason}", next_step="give its class a forward(self, inputs)"
        )
    if inputs[0].dim() != 4:
        return RecipeError(
            f"This backbone cannot take inputs of {sizes}: {reason}",
            next_step="choose a backbone for these inputs in model.name, or correct its sizes in model.options",
        )
    record = getattr(backbone, "pretrained_cfg", None)  # timm's
    made_for = record.get("input_size") if isinstance(record, dict) and record.get("fixed_input_size") else None
    if made_for and tuple(made_for[1:]) != tuple(inputs[0].shape[2:]):
        return RecipeError(
            f"This backbone cannot take inputs of {sizes}: {reason}",
            allowed=f"images of {made_for[1]} x {made_for[2]}, the only size that it is built for",
            next_step=f"--set modality.image_size={made_for[1]}, or choose another backbone in model.name",
        )
    return RecipeError(
        f"This backbone cannot take inputs of {sizes}: {reason}",
        next_step="set modality.image_size to a size that it takes, or choose another backbone in model.name; one that "
        "takes flat vectors must begin with torch.nn.Flatten",
    )


def classifier_tensors(backbone: nn.Module, layer: str) -> list[str]:
    """Names of the tensors of an output layer, and of all of the classifier that a backbone declares."""
    inside = {id(tensor) for module in _declared(backbone) for tensor in module.state_dict(keep_vars=True).values()}
    named = backbone.state_dict(keep_vars=True)
    return [name for name, tensor in named.items() if name.startswith(f"{layer}.") or id(tensor) in inside]


def feature_size(layer: nn.Module) -> int:
    """D of the feature that an output layer takes."""
    size = layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features
    assert isinstance(size, int)
    return size


def _note(called: list[str], name: str, _module: nn.Module, _inputs: object) -> None:
    called.append(name)


def _channels(module: nn.Module) -> int | None:
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, nn.Conv2d):
        return module.out_channels
    return None


def _declared(backbone: nn.Module) -> set[nn.Module]:
    get = getattr(backbone, "get_classifier", None)
    declared = get() if callable(get) else ()
    heads = declared if isinstance(declared, tuple | list) else (declared,)
    return {member for head in heads if isinstance(head, nn.Module) for member in head.modules()}
