"""What is kept of samples at one exit in the place of their outputs: losses, and what further metrics need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdcompress.tasks import Array, Float, Task, metric_of

__all__ = ["Measured"]


@dataclass(frozen=True)
class Measured:
    """N samples at one exit, or at the exits' ensemble.

    Attributes:
        loss: float32 [N].
        measures: [N, ...] each, of which the task sums up its further metrics.
    """

    loss: Float
    measures: dict[str, Array]

    @classmethod
    def of(cls, task: Task, outputs: Array, targets: Array) -> Measured:
        """Measure the outputs of a batch, [B, ...]."""
        return cls(task.loss(task.decide(outputs), targets), task.measures(outputs, targets))

    @classmethod
    def joined(cls, parts: Sequence[Measured]) -> Measured:
        """Return the samples of several batches, one after the other."""
        names = parts[0].measures
        measures = {name: np.concatenate([part.measures[name] for part in parts]) for name in names}
        return cls(np.concatenate([part.loss for part in parts]), measures)

    def metrics(self, task: Task) -> dict[str, float]:
        """Return the metric and the task's further metrics, by name."""
        return {task.metric: metric_of(self.loss), **task.summary(self.measures)}
