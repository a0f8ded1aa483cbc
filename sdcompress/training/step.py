"""One training step as one module: the network, its teacher, the method's loss and the method's own parameters."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from sdcompress.methods._base import Method
from sdcompress.models.multiexit import MultiExit
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch, Minibatch, SecondView
from sdcompress.tasks import Task
from sdcompress.training.schedule import Clock

__all__ = ["TrainingStep"]


class TrainingStep(nn.Module):
    """From inputs to the named terms of the loss; a single module, so that DDP and FSDP see all that is trained.

    Args:
        net: the network, compiled or not.
        method: the loss.
        state: what ``method.state`` built.
        task: what targets and outputs mean.
        smoothing: label smoothing of the recipe.
        teacher: a second network in evaluation mode, which is not trained.
        class_weights: float32 [K], on the device; None: all 1.

    Attributes:
        from_features: whether inputs are what heads see, so that no backbone runs.
    """

    def __init__(
        self,
        net: nn.Module,
        method: Method,
        state: nn.Module,
        *,
        task: Task,
        smoothing: float = 0.0,
        teacher: nn.Module | None = None,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.net, self.state = net, state
        self._method, self._task, self._smoothing, self._class_weights = method, task, smoothing, class_weights
        self.from_features = False
        self._teacher = (teacher,)  # in a tuple it is no submodule: not trained, not synchronised, always in evaluation

    def forward(self, primary: Minibatch, second: Minibatch | None, clock: Clock) -> dict[str, Tensor]:
        """Return the weighted terms of the loss, scalars in float32.

        Args:
            primary: the step's samples.
            second: the method's further view.
            clock: when this is.
        """
        outputs, second_outputs = self._network_outputs(primary.inputs, second.inputs if second else None)
        teacher_outputs = self._teacher_outputs(primary.inputs, clock.phase)
        # a sum of exponentials or a transport plan in half precision is not the loss that the papers mean
        with torch.autocast(primary.inputs[0].device.type, enabled=False):
            batch = Batch(
                primary,
                self._task,
                step=clock.step,
                epoch=clock.epoch,
                progress=clock.progress,
                phase=clock.phase,
                smoothing=self._smoothing,
                class_weights=self._class_weights,
                second=SecondView(_full(second_outputs), second) if second and second_outputs else None,
                teacher=_full(teacher_outputs) if teacher_outputs else None,
            )
            return self._method(_full(outputs), batch, self.state)

    def _network_outputs(
        self, primary: tuple[Tensor, ...], second: tuple[Tensor, ...] | None
    ) -> tuple[Outputs, Outputs | None]:
        view = self._method.needs.view
        if second is None or view is None:
            return self._run(self.net, primary), None
        if not view.gradient:
            with torch.no_grad():
                outputs = self._run(self.net, second)
            return self._run(self.net, primary), outputs
        both = self._run(self.net, tuple(torch.cat(pair) for pair in zip(primary, second, strict=True)))
        halves = slice(len(primary[0])), slice(len(primary[0]), None)
        first, last = (Outputs(*(tuple(tensor[half] for tensor in group) for group in both)) for half in halves)
        return first, last

    def _teacher_outputs(self, inputs: tuple[Tensor, ...], phase: int) -> Outputs | None:
        (teacher,) = self._teacher
        needs = self._method.needs
        if teacher is None or (phase == 0 and not (needs.average or needs.teacher)):
            return None  # the first generation has none before it
        with torch.no_grad():
            return self._run(teacher, inputs)

    def _run(self, net: nn.Module, inputs: tuple[Tensor, ...]) -> Outputs:
        if self.from_features:
            return cast("MultiExit", net).from_head_inputs(*inputs)
        outputs: Outputs = net(*inputs)
        return outputs


def _full(outputs: Outputs) -> Outputs:
    return Outputs(*(tuple(tensor.float() for tensor in group) for group in outputs))
