"""The networks of this folder."""

from tiny_export import checkpoint, images, model, tiny

__all__ = ["checkpoint", "images", "model", "tiny"]
