"""Gradients that rank channels: of the task's loss at every exit, on the first batches of a fixed order."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from steps import classes
from torch import nn

from sdcompress.data.samples import ArraySamples
from sdcompress.pruning.importance import add_gradients
from sdcompress.schema.recipe_compression import Prune

TASK, ROWS = classes(2), np.random.default_rng(3).normal(size=(5, 2)).astype(np.float32)
LABELS = np.array([0, 1, 1, 0, 1])


def weight_gradient(weight: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """d mean CE / d W of two exits with logits W x and 2 W x: (p1 - y + 2 (p2 - y)) x, by numpy."""
    total = np.zeros_like(weight)
    for row in rows:
        for scale in (1, 2):
            odds = np.exp(scale * weight @ ROWS[row])
            total += scale * np.outer(odds / odds.sum() - np.eye(2)[LABELS[row]], ROWS[row])
    return total / len(rows)


@pytest.mark.parametrize(("batches", "expected"), [(1, [2]), (2, [2, 2]), (9, [2, 2, 1])])
def test_losses_of_all_exits_are_added_up_over_so_many_batches(batches: int, expected: list[int]) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(2, 2, bias=False)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear

        def forward(self, rows: torch.Tensor) -> Any:
            return SimpleNamespace(logits=(self.linear(rows), 2 * self.linear(rows)))

    seen: list[int] = []

    class Watched(ArraySamples):
        def examples(self, indices: Any) -> Any:
            seen.append(len(indices))
            return super().examples(indices)

    modality = SimpleNamespace(collate=lambda rows: rows, ordered=lambda rows: (rows,))
    data: Any = SimpleNamespace(task=TASK, modality=modality, train=Watched(ROWS, LABELS))
    graph: Any = SimpleNamespace(net=Net())
    for _ in range(2):  # a second call begins anew
        seen.clear()
        add_gradients(graph, data, Prune(importance="taylor", batches=batches), batch_size=2, seed=4)
    assert seen == expected
    order = np.random.default_rng(4).permutation(5)
    parts = np.split(order[: sum(expected)], np.cumsum(expected)[:-1])
    by_hand = sum(weight_gradient(linear.weight.detach().numpy(), part) for part in parts)
    assert linear.weight.grad is not None
    np.testing.assert_allclose(linear.weight.grad.numpy(), by_hand, rtol=1e-4, atol=1e-6)
