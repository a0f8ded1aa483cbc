"""One training step as one module: the network, its teacher, the method's loss and the method's own parameters."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sdcompress.methods._base import Method
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch, Mix
from sdcompress.objectives.views import Second

__all__ = ["Clock", "Inputs", "TrainingStep"]


class Inputs(NamedTuple):
    """Images that the network sees. A tuple, because DDP looks for tensors in tuples, not in types of ours.

    Attributes:
        images: float [B, C, H, W].
        labels: int64 [B].
        samples: int64 [B], positions in the training split.
        mix: set when they are mixed.
    """

    images: Tensor
    labels: Tensor
    samples: Tensor
    mix: Mix | None = None


class Clock(NamedTuple):
    """When a step is: steps done, whole epochs done, the share of the training done, and the phase."""

    step: int
    epoch: int
    progress: float
    phase: int


class TrainingStep(nn.Module):
    """From images to the named terms of the loss; a single module, so that DDP and FSDP see all that is trained.

    Args:
        net: the network, compiled or not.
        method: the loss.
        state: what ``method.state`` built.
        smoothing: label smoothing of the recipe.
        teacher: a second network in evaluation mode, which is not trained.
        class_weights: float32 [K], on the device; None: all 1.
    """

    def __init__(
        self,
        net: nn.Module,
        method: Method,
        state: nn.Module,
        smoothing: float,
        teacher: nn.Module | None = None,
        *,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.net, self.state = net, state
        self._method, self._smoothing, self._class_weights = method, smoothing, class_weights
        self._teacher = (teacher,)  # in a tuple it is no submodule: not trained, not synchronised, always in evaluation

    def forward(self, own: Inputs, second: Inputs | None, clock: Clock) -> dict[str, Tensor]:
        """The weighted terms of the loss, scalars in float32.

        Args:
            own: the step's images.
            second: the method's further view.
            clock: when this is.
        """
        outputs, further = self._see(own.images, second.images if second else None)
        taught = self._teach(own.images, clock.phase)
        # a sum of exponentials or a transport plan in half precision is not the loss that the papers mean
        with torch.autocast(own.images.device.type, enabled=False):
            batch = Batch(
                images=own.images,
                labels=own.labels,
                index=own.samples,
                step=clock.step,
                epoch=clock.epoch,
                progress=clock.progress,
                phase=clock.phase,
                smoothing=self._smoothing,
                class_weights=self._class_weights,
                mix=own.mix,
                second=Second(_full(further), *second[1:]) if second and further else None,
                teacher=_full(taught) if taught else None,
            )
            return self._method(_full(outputs), batch, self.state)

    def _see(self, images: Tensor, further: Tensor | None) -> tuple[Outputs, Outputs | None]:
        view = self._method.needs.view
        if further is None or view is None:
            return self.net(images), None
        if not view.gradient:
            with torch.no_grad():
                said = self.net(further)
            return self.net(images), said
        both: Outputs = self.net(torch.cat([images, further]))
        one, two = (Outputs(*(tuple(t[half] for t in group) for group in both)) for half in _halves(len(images)))
        return one, two

    def _teach(self, images: Tensor, phase: int) -> Outputs | None:
        (teacher,) = self._teacher
        if teacher is None or (phase == 0 and not self._method.needs.average):
            return None  # the first generation has none before it
        with torch.no_grad():
            said: Outputs = teacher(images)
        return said


def _halves(size: int) -> tuple[slice, slice]:
    return slice(size), slice(size, None)


def _full(outputs: Outputs) -> Outputs:
    return Outputs(*(tuple(tensor.float() for tensor in group) for group in outputs))
