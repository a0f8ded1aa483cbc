"""Check what a family of torchvision's networks is called with."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from types import ModuleType

from torchvision import models

from sdcompress.errors import RecipeError, UnknownNameError
from sdcompress.models.inputs import image_shape
from sdcompress.schema import graphs

__all__ = ["check_call"]


def check_call(family: str, name: str, module: ModuleType, inputs: Sequence[graphs.Tensor], other: str) -> None:
    """Refuse a name that torchvision does not have, and inputs other than images of three channels.

    Args:
        family: of backbones.
        name: of the network.
        module: of torchvision, which has the family's networks.
        inputs: tensors of the modality.
        other: a family for other images.

    Raises:
        UnknownNameError: if there is no such network.
        RecipeError: if the input is no image, or has another number of channels.
    """
    known = models.list_models(module=module)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=8, cutoff=0.0)
        raise UnknownNameError(f"networks of '{family}' (the nearest of them)", name, near)
    if (channels := image_shape(inputs, f"{family}:{name}")[0]) != 3:
        raise RecipeError(
            f"'{family}:{name}' takes images of 3 channels, and these have {channels}.",
            allowed="colour images",
            next_step=f"choose a {other}: backbone, which takes grey images too",
        )
