"""One family of backbones per file: ``family(name, *, classes, image, pretrained, **options) -> nn.Module``.

A family for other inputs than pictures takes ``inputs``, the tensors of the modality, in the place of ``image``.
"""

from __future__ import annotations

__all__ = ["ROOM"]

ROOM = "sdcompress.models.backbones"
