"""One family of backbones per file: ``family(name, *, classes, image, pretrained, **options) -> nn.Module``."""

from __future__ import annotations

__all__ = ["ROOM"]

ROOM = "sdcompress.models.backbones"
