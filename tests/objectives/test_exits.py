"""Sums over exits, and teachers, which give targets and take no gradient."""

from __future__ import annotations

import torch

from sdcompress.objectives.exits import deepest, ensemble, total


def test_terms_are_added_from_shallow_to_deep() -> None:
    # In float32 1e8 + 1 is 1e8, so only one order gives 1.
    assert total(torch.tensor(x) for x in (1e8, -1e8, 1.0)).item() == 1.0
    assert total(torch.tensor(x) for x in (1.0, 1e8, -1e8)).item() == 0.0


def test_the_deepest_exit_teaches_without_a_gradient() -> None:
    exits = [torch.ones(2, 3, requires_grad=True), torch.full((2, 3), 2.0, requires_grad=True)]
    teacher = deepest(exits)
    assert torch.equal(teacher, torch.full((2, 3), 2.0))
    assert not teacher.requires_grad


def test_the_ensemble_is_the_plain_mean_without_a_gradient() -> None:
    exits = [torch.tensor([[1.0, 5.0]], requires_grad=True), torch.tensor([[3.0, -1.0]], requires_grad=True)]
    teacher = ensemble(exits)
    assert torch.equal(teacher, torch.tensor([[2.0, 2.0]]))
    assert not teacher.requires_grad
