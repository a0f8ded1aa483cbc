"""Augment a fetched batch on its device by the modality, and make the method's second view of it."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from sdcompress.modalities import Augment, Inputs, Modality
from sdcompress.modalities._mixing import Mixing
from sdcompress.objectives.batch import Minibatch, Mix, View
from sdcompress.training.batches import MicroBatch

__all__ = ["BatchPreparer"]


class BatchPreparer:
    """What is done to the samples of a part before the network sees them.

    Args:
        augment: the augmentation of the recipe.
        view: the method's further view, if it has one.
        device: of the training.
        layout: of inputs in memory.
        target_fill: of the task, see ``Task.target_fill``.
        modality: of the inputs, which pads those that differ in length; None: none do.
    """

    def __init__(
        self,
        augment: Augment,
        view: View | None,
        device: torch.device,
        layout: torch.memory_format,
        *,
        target_fill: int | None = None,
        modality: Modality | None = None,
    ) -> None:
        self._augment, self._view, self._device, self._layout = augment, view, device, layout
        self._target_fill, self._modality = target_fill, modality

    def __call__(self, part: MicroBatch, generator: Generator) -> tuple[Minibatch, Minibatch | None]:
        """Return the step's samples and the further view of them; augmentation draws from ``generator``."""
        raw, view = self._on_device(part.primary), self._view
        primary = self._augmented(raw, generator)
        if view is None:
            return primary, None
        other = self._on_device(part.companions) if part.companions else raw
        second = self._augmented(other, generator) if view.augmented or part.companions else primary
        if view.mixed:
            inputs, mixing = self._augment.mixup(second.inputs, view.mixed, generator)
            second = second._replace(inputs=inputs, mix=_mix(second, mixing))
        if view.gradient and part.companions:  # both are one batch to the network
            length = max(self._length(primary), self._length(second))
            return self._padded(primary, length), self._padded(second, length)
        return primary, second

    def _length(self, samples: Minibatch) -> int:
        """Return the longest of the axes that vary; 0 where none does."""
        tensors = self._modality.tensors if self._modality else ()
        return max(
            (
                size
                for values, tensor in zip(samples.inputs, tensors, strict=False)
                for size, axis in zip(values.shape[1:], tensor.shape[1:], strict=True)
                if isinstance(axis, str)
            ),
            default=0,
        )

    def _padded(self, samples: Minibatch, length: int) -> Minibatch:
        if self._modality is None or self._length(samples) == length:
            return samples
        names = [tensor.name for tensor in self._modality.tensors]
        arrays = {name: values.cpu().numpy() for name, values in zip(names, samples.inputs, strict=True)}
        padded = self._modality.ordered(self._modality.padded(Inputs(arrays, self._modality.mask), length))
        inputs = (torch.from_numpy(array).to(self._device) for array in padded)
        return samples._replace(inputs=tuple(map(self._laid_out, inputs)))

    def _augmented(self, raw: Minibatch, generator: Generator) -> Minibatch:
        (examples,) = raw.inputs
        if self._target_fill is None:
            inputs, mixing = self._augment(examples, generator)
        else:
            inputs, moved, mixing = self._augment.joint(examples, raw.targets, generator, fill=self._target_fill)
            assert moved is not None, "there were targets"
            raw = raw._replace(targets=moved)
        return raw._replace(inputs=tuple(map(self._laid_out, inputs)), mix=mixing and _mix(raw, mixing))

    def _laid_out(self, values: Tensor) -> Tensor:
        return values.contiguous(memory_format=self._layout if values.dim() == 4 else torch.contiguous_format)

    def _on_device(self, raw: Minibatch) -> Minibatch:
        *inputs, targets, positions = (
            tensor.to(self._device, non_blocking=True) for tensor in (*raw.inputs, raw.targets, raw.positions)
        )
        return Minibatch(tuple(inputs), targets, positions)


def _mix(samples: Minibatch, mixing: Mixing) -> Mix:
    return Mix(samples.targets[mixing.partner], *mixing)
