"""Shapes that networks are built for."""

from __future__ import annotations

from sdcompress.schema.graphs import Tensor


def pictures(channels: int, height: int, width: int) -> tuple[Tensor, ...]:
    """The tensors of images of that size."""
    return (Tensor(name="input", dtype="float32", shape=("batch", channels, height, width)),)
