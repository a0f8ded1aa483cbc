"""The geometric ensemble of Zero Time Waste, without its weights: exit k averages log-probabilities of exits 0..k."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sdcompress.errors import UsageError
from sdcompress.tasks import Task

__all__ = ["GeometricEnsemble"]


class GeometricEnsemble(nn.Module):
    """Replaces the outputs of exit k by the mean of ``Task.ensemble_terms`` of all kept exits up to k.

    In classification these are log-probabilities. Exits with pruned heads are not in the file and do not count.

    Wołczyk et al., "Zero Time Waste", NeurIPS 2021 (arXiv:2106.05409). There each class and exit has a fitted weight;
    here all weights are one. The softmax of the result is the normalised geometric mean of the exits' probabilities. It
    costs K additions for each exit; segments pass the partial sum on.

    Args:
        net: the inputs -> tensors [B, ...].
        task: what the outputs mean.
        kept: positions of the E kept exits, rising; None: all.

    Raises:
        UsageError: if the task has no geometric ensemble.
    """

    def __init__(self, net: nn.Module, task: Task, kept: Sequence[int] | None = None) -> None:
        super().__init__()
        if task.ensemble_terms(torch.zeros(1, *task.output_shape)) is None:
            raise UsageError(
                f"export.ensemble is set, and the task '{task.record.name}' has no geometric ensemble of its exits.",
                allowed="tasks whose outputs stand for probabilities, such as classification and multilabel",
                next_step="remove export.ensemble from the recipe, or export with --no-ensemble",
            )
        self.net, self.task, self.kept = net, task, kept

    def forward(self, first: Tensor, *further: Tensor) -> tuple[Tensor, ...]:
        """The ensembles' outputs, E tensors [B, ...]; the first input has a name, see ``LogitsOnly``."""
        ensembles: list[Tensor] = []
        total: Tensor | None = None
        outputs = self.net(first, *further)
        for position in range(len(outputs)) if self.kept is None else self.kept:
            terms = self.task.ensemble_terms(outputs[position])
            assert terms is not None, "asked when it was made"
            total = terms if total is None else total + terms
            ensembles.append(total / (len(ensembles) + 1))
        return tuple(ensembles)
