"""A method with exits whose last exit learns from the labels of another: ``eed+ps_kd``."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from sdcompress.methods._base import Context, LabelMethod, Method, Needs, Phase
from sdcompress.models.outputs import Outputs
from sdcompress.objectives.batch import Batch

__all__ = ["Labelled"]


@dataclass(frozen=True, kw_only=True)
class Labelled(Method):
    """Two methods on two axes: where the teacher is (the exits), and what the label is (the last exit).

    Attributes:
        method: the loss.
        labels: the label of its last exit.
    """

    method: Method
    labels: LabelMethod

    @property
    def needs(self) -> Needs:
        """Return what the method needs; tasks and mixing also as the labels need them."""
        needs, labels = self.method.needs, self.labels.needs
        tasks = needs.tasks
        if labels.tasks is not None:
            tasks = tuple(task for task in labels.tasks if needs.tasks is None or task in needs.tasks)
        return replace(needs, tasks=tasks, mixing=needs.mixing and labels.mixing)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Return those of the method."""
        return self.method.phases

    def state(self, context: Context) -> nn.Module:
        """Return what both keep."""
        return nn.ModuleDict({"method": self.method.state(context), "labels": self.labels.state(context)})

    def __call__(self, outputs: Outputs, batch: Batch, state: nn.Module) -> dict[str, Tensor]:
        """The terms of the method."""
        label = self.labels.label(outputs.logits[-1], batch, state.get_submodule("labels"))
        return self.method(outputs, replace(batch, last_target=label), state.get_submodule("method"))
