"""Which module of a backbone turns the final feature into logits."""

from __future__ import annotations

import inspect
from functools import partial

import torch
from torch import Tensor, nn

from sdcompress.errors import RecipeError
from sdcompress.models._trace import evaluating

__all__ = ["classifier_name", "feature_size"]

# What networks raise for images that are too small, or of another size than they were built for.
_SIZE_ERRORS = (RuntimeError, ValueError, AssertionError)


def classifier_name(backbone: nn.Module, images: Tensor, classes: int) -> str:
    """The name of the last Linear or convolution with one output for each class that a forward pass calls.

    A backbone that declares its classifier (timm's ``get_classifier``) is believed.

    Args:
        backbone: the network; it is left as it was.
        images: float [B, C, H, W].
        classes: K.

    Raises:
        RecipeError: if the backbone cannot take the images, does not return [B, K], or ends in something else.
    """
    _check_inputs(backbone)
    called: list[str] = []
    handles = [
        module.register_forward_pre_hook(partial(_note, called, name))
        for name, module in backbone.named_modules()
        if _outputs(module) == classes
    ]
    try:
        with evaluating(backbone), torch.no_grad():
            logits = backbone(images)
    except _SIZE_ERRORS as error:
        raise _cannot_take(backbone, images, error) from error
    finally:
        for handle in handles:
            handle.remove()
    expected = (images.shape[0], classes)
    if not isinstance(logits, Tensor) or logits.shape != expected:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise RecipeError(
            f"This backbone returns {got} for {expected[0]} images of a data set of {classes} classes.",
            allowed=f"one tensor of logits, {expected}",
            next_step="let its last layer have as many outputs as there are classes, and return only that",
        )
    declared = _declared(backbone)
    if not called:
        raise RecipeError(
            "This backbone does not end in a linear classifier, so there is no final feature to learn from.",
            allowed=f"a torch.nn.Linear, or a 1 x 1 torch.nn.Conv2d, with {classes} outputs",
            next_step="end it with one, or choose another backbone in model.name",
        )
    return ([name for name in called if backbone.get_submodule(name) in declared] or called)[-1]


def _check_inputs(backbone: nn.Module) -> None:
    """Refuse a network that cannot be called with the images alone."""
    try:
        signature = inspect.signature(backbone.forward)
    except ValueError:  # written in C
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise RecipeError(
            f"The forward{signature} of this backbone cannot be called with the images alone: {error}.",
            allowed="one input, float images [B, C, H, W]; further arguments with defaults",
            next_step="wrap it in a module of your own that takes the images and fills in the rest",
        ) from error


def _cannot_take(backbone: nn.Module, images: Tensor, error: Exception) -> RecipeError:
    size = " x ".join(map(str, images.shape[1:]))
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if isinstance(error, NotImplementedError):
        return RecipeError(
            f"This backbone cannot be called: {reason}", next_step="give its class a forward(self, images)"
        )
    record = getattr(backbone, "pretrained_cfg", None)  # timm's
    made_for = record.get("input_size") if isinstance(record, dict) and record.get("fixed_input_size") else None
    if made_for and tuple(made_for[1:]) != tuple(images.shape[2:]):
        return RecipeError(
            f"This backbone cannot take images of {size} (C x H x W): {reason}",
            allowed=f"images of {made_for[1]} x {made_for[2]}, the only size that it is built for",
            next_step=f"--set data.image_size={made_for[1]}, or choose another backbone in model.name",
        )
    return RecipeError(
        f"This backbone cannot take images of {size} (C x H x W): {reason}",
        next_step="set data.image_size to a size that it takes, or choose another backbone in model.name; one that "
        "takes flat vectors must begin with torch.nn.Flatten",
    )


def feature_size(classifier: nn.Module) -> int:
    """D of the feature that a classifier takes."""
    size = classifier.in_channels if isinstance(classifier, nn.Conv2d) else classifier.in_features
    assert isinstance(size, int)
    return size


def _note(called: list[str], name: str, _module: nn.Module, _inputs: object) -> None:
    called.append(name)


def _outputs(module: nn.Module) -> int | None:
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, nn.Conv2d):
        return module.out_channels
    return None


def _declared(backbone: nn.Module) -> set[nn.Module]:
    get = getattr(backbone, "get_classifier", None)
    found = get() if callable(get) else ()
    heads = found if isinstance(found, tuple | list) else (found,)
    return {member for head in heads if isinstance(head, nn.Module) for member in head.modules()}
