"""Any image classifier of timm by its name, with published weights where model.pretrained is set."""

from __future__ import annotations

import difflib
from typing import Any

import timm as timm_library
from torch import nn

from sdcompress.errors import RecipeError, SetupError, UnknownNameError

__all__ = ["timm"]


def timm(name: str, *, classes: int, image: tuple[int, int, int], pretrained: bool, **options: Any) -> nn.Module:
    """A timm model with a new classifier for K classes.

    Args:
        name: as ``timm.create_model`` takes it, a tag of weights included.
        classes: K.
        image: (C, H, W); families that are built for one size are built for this one.
        pretrained: download the published weights.
        options: further keyword arguments of ``timm.create_model``.

    Raises:
        UnknownNameError: if timm has no such model.
        RecipeError: if there are no such weights.
        SetupError: if the weights cannot be downloaded.
    """
    if not timm_library.is_model(name):
        near = difflib.get_close_matches(name, timm_library.list_models(), n=8, cutoff=0.0)
        raise UnknownNameError("models of timm (the nearest of them)", name, near)
    arguments = {"pretrained": pretrained, "num_classes": classes, "in_chans": image[0], **options}
    try:
        return _sized(name, image[1:], arguments)
    except OSError as error:
        raise SetupError(
            f"The weights of 'timm:{name}' cannot be downloaded: {error}",
            next_step="check the connection to huggingface.co, or remove model.pretrained",
        ) from error
    except RuntimeError as error:
        if not pretrained:
            raise
        raise RecipeError(
            f"timm cannot load weights for 'timm:{name}': {error}",
            next_step="remove model.pretrained, or name a tag of timm.list_pretrained()",
        ) from error


def _sized(name: str, size: tuple[int, int], arguments: dict[str, Any]) -> nn.Module:
    # timm does not say which families take a size; those that do not refuse the argument before they build anything
    try:
        model: nn.Module = timm_library.create_model(name, img_size=size, **arguments)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        model = timm_library.create_model(name, **arguments)
    return model
