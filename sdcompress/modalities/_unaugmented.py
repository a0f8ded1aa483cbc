"""Examples as inputs for training, for a modality without augmentation of its own."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor

from sdcompress.modalities._base import Modality
from sdcompress.modalities._mixing import Mixing, mixup

__all__ = ["Unaugmented"]


class Unaugmented:
    """Collates examples on the CPU; mixup alone may be on. See ``Augment``.

    Args:
        mixup: alpha of the Beta distribution; 0 = off.
        modality: of the examples.
    """

    def __init__(self, mixup: float, modality: Modality) -> None:
        self._mixup, self._modality = mixup, modality

    def __call__(self, examples: Tensor, generator: Generator) -> tuple[tuple[Tensor, ...], Mixing | None]:
        """Collate one batch, and mix it where the recipe says so."""
        arrays = self._modality.ordered(self._modality.collate(examples.cpu().numpy()))
        inputs = tuple(torch.from_numpy(np.ascontiguousarray(array)).to(examples.device) for array in arrays)
        return self.mixup(inputs, self._mixup, generator) if self._mixup else (inputs, None)

    def joint(
        self, examples: Tensor, targets: Tensor, generator: Generator, *, fill: int
    ) -> tuple[tuple[Tensor, ...], Tensor, Mixing | None]:
        """The same: nothing is moved, so that targets stay as they are."""
        del fill
        inputs, mixing = self(examples, generator)
        return inputs, targets, mixing

    def mixup(
        self, inputs: tuple[Tensor, ...], alpha: float, generator: Generator
    ) -> tuple[tuple[Tensor, ...], Mixing]:
        """Mix inputs among themselves; see ``Augment``."""
        return mixup(inputs, alpha, generator)
