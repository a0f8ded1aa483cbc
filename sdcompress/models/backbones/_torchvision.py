"""Check what a family of torchvision's networks is called with."""

from __future__ import annotations

import difflib
from types import ModuleType

from torchvision import models

from sdcompress.errors import RecipeError, UnknownNameError

__all__ = ["check_call"]


def check_call(family: str, name: str, module: ModuleType, image: tuple[int, int, int], other: str) -> None:
    """Refuse a name that torchvision does not have, and images of other than three channels.

    Args:
        family: of backbones.
        name: of the network.
        module: of torchvision, which has the family's networks.
        image: (C, H, W).
        other: a family for other images.

    Raises:
        UnknownNameError: if there is no such network.
        RecipeError: if the images have another number of channels.
    """
    known = models.list_models(module=module)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=8, cutoff=0.0)
        raise UnknownNameError(f"networks of '{family}' (the nearest of them)", name, near)
    if image[0] != 3:
        raise RecipeError(
            f"'{family}:{name}' takes images of 3 channels, and these have {image[0]}.",
            allowed="colour images",
            next_step=f"choose a {other}: backbone, which takes grey images too",
        )
