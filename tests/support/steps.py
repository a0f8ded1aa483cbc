"""Training steps without inputs, for losses that are worked out by hand; and a task besides classification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sdcompress.errors import RecipeError
from sdcompress.objectives.batch import Batch, Minibatch, Mix
from sdcompress.tasks import Signals, Task
from sdcompress.tasks.classification import Classification


def classes(count: int) -> Classification:
    """A classification of so many classes."""
    return Classification(tuple(map(str, range(count))))


def samples_of(targets: Tensor | Sequence[int], index: Tensor | None = None, mix: Mix | None = None) -> Minibatch:
    """Samples with these targets, whose inputs nobody looks at; by default the first of the training split."""
    targets = torch.as_tensor(targets)
    index = torch.arange(len(targets)) if index is None else index
    return Minibatch((torch.zeros(len(targets), 1),), targets, index, mix)


def step_of(
    targets: Tensor | Sequence[int],
    index: Tensor | None = None,
    *,
    count: int = 2,
    mix: Mix | None = None,
    **fields: Any,
) -> Batch:
    """A step of a classification of ``count`` classes."""
    return Batch(samples_of(targets, index, mix), classes(count), **fields)


@dataclass(frozen=True)
class Tags(Task):
    """Any number of labels a sample: targets uint8 [N, K], no strata. What training uses of a task, and no more."""

    metric: ClassVar[str] = "overlap"
    signal_names: ClassVar[tuple[str, ...]] = ()
    binary_loss: ClassVar[bool] = False
    scaled_by_temperature: ClassVar[bool] = True

    def check_targets(self, targets: Any) -> None:
        raise NotImplementedError

    def strata(self, targets: Any) -> None:
        return None

    def decide(self, outputs: Any) -> Any:
        return (outputs > 0).astype(np.uint8)

    def loss(self, decisions: Any, targets: Any) -> Any:
        """Share of the labels that are wrong."""
        return (decisions != targets).mean(axis=1, dtype=np.float32)

    def nll(self, outputs: Any, targets: Any, temperature: float = 1.0) -> float:
        raise NotImplementedError

    def signals(self, outputs: Any, temperature: float = 1.0) -> Signals:
        raise NotImplementedError

    def signal_nodes(self, outputs: str, values: str, decision: str, *, decided_by: str | None = None) -> Any:
        raise NotImplementedError

    def encode(self, targets: Tensor) -> Tensor:
        return targets.float()

    def smoothed(self, encoded: Tensor, smoothing: float) -> Tensor:
        if smoothing < 0:
            raise RecipeError("smoothing")
        return (1 - smoothing) * encoded + smoothing / 2

    def soft_targets(self, outputs: Tensor) -> Tensor:
        return outputs.sigmoid()

    def supervised_loss(self, outputs: Tensor, encoded: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(outputs, encoded, reduction="sum") / len(outputs)

    def divergence(self, student: Tensor, teacher: Tensor, temperature: float | Tensor) -> Tensor:
        p = (teacher / temperature).sigmoid()
        cross, own = (
            F.binary_cross_entropy_with_logits(z / temperature, p, reduction="sum") for z in (student, teacher)
        )
        return temperature**2 * (cross - own) / len(student)
