"""Shapes that networks are built for, and shallow forms of deep networks."""

from __future__ import annotations

from typing import Any

from sdcompress.schema.graphs import Tensor

# fewer blocks of the same kinds, for exports, whose time grows with the number of nodes
SHALLOW: dict[str, dict[str, Any]] = {
    "timm:vit_tiny_patch16_224": {"depth": 4},
    "timm:convnext_atto": {"depths": (1, 1, 2, 1)},
}


def pictures(channels: int, height: int, width: int) -> tuple[Tensor, ...]:
    """The tensors of images of that size."""
    return (Tensor(name="input", dtype="float32", shape=("batch", channels, height, width)),)
