"""The contract of augmentation: what a recipe may set of it, and how examples become inputs in training."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from sdcompress.schema.base import Frozen

if TYPE_CHECKING:
    from torch import Generator
    from torch import Tensor as Values

    from sdcompress.modalities._mixing import Mixing

__all__ = ["Augment", "AugmentationSettings"]


class AugmentationSettings(Frozen):
    """The parameters of ``train.augment`` of a modality, beside mixup; every default means that nothing is done."""

    mixing: ClassVar[tuple[str, ...]] = ()
    """Those that mix samples, which some methods do not allow."""
    moving: ClassVar[tuple[str, ...]] = ()
    """Those that move what an input shows, so that two views of it show it at other places."""


class Augment(Protocol):
    """Examples as inputs in training: what ``Modality.augment`` makes."""

    def __call__(self, examples: Values, generator: Generator) -> tuple[tuple[Values, ...], Mixing | None]:
        """Augment and collate one batch on its device.

        Args:
            examples: [B, ...], as ``Samples.examples`` gives them.
            generator: the only source of chance, alike in all processes; on any device.

        Returns:
            The inputs in the order of ``Modality.tensors``, each [B, ...]; and how they were mixed, if they were.

        Raises:
            RecipeError: if a setting does not fit the examples.
        """

    def joint(
        self, examples: Values, targets: Values, generator: Generator, *, fill: int
    ) -> tuple[tuple[Values, ...], Values | None, Mixing | None]:
        """The same with targets that have the places of the inputs, such as masks: what moves the one moves the other.

        Args:
            examples: [B, ...].
            targets: [B, H, W].
            generator: the only source of chance.
            fill: what a target holds where nothing is known of the input.

        Returns:
            The inputs, the targets where they lie now, and how inputs were mixed, if their targets are to be mixed too.

        Raises:
            RecipeError: if a setting cannot move targets.
        """

    def mixup(
        self, inputs: tuple[Values, ...], alpha: float, generator: Generator
    ) -> tuple[tuple[Values, ...], Mixing]:
        """Mix inputs among themselves, for methods that ask for it.

        Args:
            inputs: each [B, ...].
            alpha: of the Beta distribution of the weight.
            generator: the only source of chance.
        """
