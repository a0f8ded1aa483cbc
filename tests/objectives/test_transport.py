"""Optimal transport, against hand values and scipy's exact assignment."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from sdcompress.objectives.transport import plan, transport


def _cells(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_plan_of_two_cells_by_hand() -> None:
    # Costs 0 and 1 have mean 1/2, so an epsilon of 1/2 divides them by 1/4: a swap is e^-4 as likely as staying.
    found = plan(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]), epsilon=0.5, iterations=5)
    stay = 0.5 / (1 + math.exp(-4))
    torch.testing.assert_close(found, torch.tensor([[[stay, 0.5 - stay], [0.5 - stay, stay]]]))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 8))
def test_without_entropy_it_is_the_best_assignment(seed: int, count: int) -> None:
    student, teacher = _cells(seed, 2, 1, count, 3)
    cost = torch.cdist(student, teacher)[0].square() / 3
    rows, columns = linear_sum_assignment(cost.numpy())
    best = cost[rows, columns].mean().item()
    found = transport(student, teacher, epsilon=2e-3, iterations=3000).item()
    assert found == pytest.approx(best, rel=0.02, abs=2e-3 * cost.mean().item())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 12))
def test_a_plan_moves_everything_once(seed: int, rows: int, columns: int) -> None:
    cost = _cells(seed, 2, rows, columns).abs()
    found = plan(cost, epsilon=0.5, iterations=300)
    torch.testing.assert_close(found.sum(1), torch.full((2, columns), 1 / columns, dtype=torch.float64))
    torch.testing.assert_close(found.sum(2), torch.full((2, rows), 1 / rows, dtype=torch.float64), rtol=1e-3, atol=1e-5)


def test_where_a_cell_lies_does_not_matter() -> None:
    student, teacher = _cells(0, 2, 3, 9, 4)
    shuffled = student[:, torch.randperm(9)]
    torch.testing.assert_close(transport(shuffled, teacher), transport(student, teacher))


def test_the_scale_of_the_features_does_not_change_the_plan() -> None:
    student, teacher = _cells(0, 2, 3, 9, 4)
    torch.testing.assert_close(transport(10 * student, 10 * teacher), 100 * transport(student, teacher))


def test_the_gradient_takes_the_plan_as_given() -> None:
    student, teacher = _cells(1, 2, 2, 5, 3)
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(transport(student, teacher), student)
    fixed = plan(torch.cdist(student, teacher).square() / 3, epsilon=0.05, iterations=20)
    assert not fixed.requires_grad
    # d/ds_u of mean_b sum_v P_uv |s_u - t_v|^2 / D
    expected = 2 / 3 / 2 * (fixed.unsqueeze(3) * (student.unsqueeze(2) - teacher.unsqueeze(1))).sum(2)
    torch.testing.assert_close(gradient, expected.detach())


def test_maps_without_any_difference_cost_nothing() -> None:
    student = torch.ones(2, 4, 3, requires_grad=True)
    loss = transport(student, torch.ones(2, 4, 3))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(student.grad if student.grad is not None else torch.empty(0), torch.zeros(2, 4, 3))
