"""Any image classifier of timm by its name, with published weights where model.pretrained is set."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import timm as timm_library
from torch import nn

from sdcompress.errors import RecipeError, SetupError, UnknownNameError
from sdcompress.models.inputs import image_shape
from sdcompress.schema import graphs

__all__ = ["timm"]


def timm(
    name: str, *, outputs: tuple[int, ...], inputs: Sequence[graphs.Tensor], pretrained: bool, **options: Any
) -> nn.Module:
    """Return a timm model with a new classifier for K classes.

    Args:
        name: as ``timm.create_model`` takes it, a tag of weights included.
        outputs: (K,).
        inputs: one image; families that are built for one size are built for this one.
        pretrained: download the published weights.
        options: further keyword arguments of ``timm.create_model``.

    Raises:
        UnknownNameError: if timm has no such model.
        RecipeError: if the input is no image, there are no such weights, or those of ``checkpoint_path`` do not fit.
        SetupError: if the weights cannot be downloaded.
    """
    if not timm_library.is_model(name):
        near = difflib.get_close_matches(name, timm_library.list_models(), n=8, cutoff=0.0)
        raise UnknownNameError("models of timm (the nearest of them)", name, near)
    channels, *size = image_shape(inputs, f"timm:{name}")
    arguments = {"pretrained": pretrained, "num_classes": outputs[0], "in_chans": channels, **options}
    overlay = options.get("pretrained_cfg_overlay") or {}
    file = options.get("checkpoint_path") or (overlay.get("file") if pretrained else None)
    try:
        return _sized(name, (size[0], size[1]), arguments)
    except (OSError, RuntimeError) as error:
        if file:
            raise _unfit_file(name, str(file), outputs[0], error) from error
        if isinstance(error, OSError):
            raise SetupError(
                f"The weights of 'timm:{name}' cannot be downloaded: {error}",
                next_step=_where_to_fetch(name),
            ) from error
        if not pretrained:
            raise
        raise RecipeError(
            f"timm cannot load weights for 'timm:{name}': {error}",
            next_step="remove model.pretrained, or name a tag of timm.list_pretrained()",
        ) from error


def _unfit_file(name: str, file: str, classes: int, error: Exception) -> RecipeError:
    reason = " ".join(line.strip() for line in str(error).splitlines()[:2]) or "there is no such file"
    return RecipeError(
        f"timm cannot load '{file}' into 'timm:{name}': {reason}",
        allowed=f"a file of weights alone, of the same network; in checkpoint_path with {classes} classes",
        next_step=f"set model.weights={file} without these options: a classifier of another size is then new",
    )


def _where_to_fetch(name: str) -> str:
    """Return which file to fetch on a machine with a network, and how to name it."""
    record = timm_library.get_pretrained_cfg(name)
    url = (
        f"https://huggingface.co/{record.hf_hub_id}/resolve/main/model.safetensors" if record.hf_hub_id else record.url
    )
    return (
        f"fetch {url} on another machine, put it at weights/{name}{PurePosixPath(url or '').suffix}, and set "
        f"model.weights=weights/{name}{PurePosixPath(url or '').suffix} in the place of model.pretrained"
    )


def _sized(name: str, size: tuple[int, int], arguments: dict[str, Any]) -> nn.Module:
    # timm does not say which families take a size; those that do not refuse the argument before they build anything
    try:
        model: nn.Module = timm_library.create_model(name, img_size=size, **arguments)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        model = timm_library.create_model(name, **arguments)
    return model
