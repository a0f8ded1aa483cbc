"""The checkpoint of this folder."""

from tiny_export import checkpoint

__all__ = ["checkpoint"]
