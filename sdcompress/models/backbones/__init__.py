"""One family of backbones per file: ``family(name, *, outputs, inputs, pretrained, **options) -> nn.Module``.

``outputs`` is the shape of one sample's outputs, as the task has it: (K,), or (K, H, W). ``inputs`` are the tensors of
the modality; a family of networks for images reads their size by ``models.inputs.image_shape``.
"""

from __future__ import annotations

__all__ = ["ROOM"]

ROOM = "sdcompress.models.backbones"
