"""One head per file: what an exit is made of, from the backbone's map to logits."""

from __future__ import annotations

__all__ = ["ROOM"]

ROOM = "sdcompress.models.heads"
