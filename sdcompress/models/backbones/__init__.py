"""One family of backbones per file: ``family(name, *, outputs, inputs, pretrained, **options) -> nn.Module``.

``outputs`` is the shape of one sample's outputs, as the task has it: (K,), or (K, H, W). ``inputs`` are the tensors of
the modality; a family of networks for images reads their size by ``models.inputs.image_shape``.
"""

from __future__ import annotations

from sdcompress import registry

__all__ = ["ROOM", "is_users_own"]

ROOM = "sdcompress.models.backbones"


def is_users_own(name: str) -> bool:
    """Return whether a function of the user's own builds a backbone (``module:function``), and no family of this room.

    Args:
        name: ``model.name`` of a recipe.
    """
    return name.partition(":")[0] not in registry.names(ROOM)
