"""Collate a batch without other augmentation, mix its samples (mixup), and draw the numbers for it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from sdcompress.modalities._base import Modality

__all__ = ["Mixing", "Unaugmented", "beta", "integers", "mixup", "permutation", "sent"]


class Mixing(NamedTuple):
    """How the samples of a batch were mixed.

    Attributes:
        weight: float32 [B] in [0, 1], share of the sample itself.
        partner: int64 [B], where in the batch the sample stands that was mixed in.
    """

    weight: Tensor
    partner: Tensor


def mixup(inputs: tuple[Tensor, ...], alpha: float, generator: Generator) -> tuple[tuple[Tensor, ...], Mixing]:
    """Mix each sample with another one, one weight a batch, as the authors' code does (Zhang et al. 2018).

    Args:
        inputs: floats, each [B, ...].
        alpha: of the Beta distribution of the weight.
        generator: the only source of chance.
    """
    weight = beta(alpha, generator)
    partner = permutation(inputs[0], generator)
    mixed = tuple(torch.lerp(values[partner], values, weight) for values in inputs)
    return mixed, Mixing(torch.full((len(partner),), weight, device=partner.device), partner)


def sent(numbers: Tensor, device: torch.device) -> Tensor:
    """Numbers on a device."""
    # CUDA takes its own copy before it returns; a copy that also waits would stop the device several times a step
    return numbers.to(device, non_blocking=device.type == "cuda")


def integers(below: int, count: int, generator: Generator, device: torch.device) -> Tensor:
    """``count`` integers from 0 and below a bound, int64, on a device."""
    return sent(torch.randint(below, (count,), generator=generator, device=generator.device), device)


def permutation(rows: Tensor, generator: Generator) -> Tensor:
    """Return a permutation of the rows of a tensor, on its device."""
    return sent(torch.randperm(len(rows), generator=generator, device=generator.device), rows.device)


def beta(alpha: float, generator: Generator) -> float:
    """Return a number of the distribution Beta(alpha, alpha)."""
    # torch's Beta distribution takes no generator
    return float(np.random.default_rng(int(integers(2**62, 1, generator, generator.device))).beta(alpha, alpha))


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
        """Return the same: nothing is moved, so that targets stay as they are."""
        del fill
        inputs, mixing = self(examples, generator)
        return inputs, targets, mixing

    def mixup(
        self, inputs: tuple[Tensor, ...], alpha: float, generator: Generator
    ) -> tuple[tuple[Tensor, ...], Mixing]:
        """Mix inputs among themselves; see ``Augment``."""
        return mixup(inputs, alpha, generator)
