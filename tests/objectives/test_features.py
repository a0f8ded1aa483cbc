"""Feature distances and the maps that make them comparable."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcompress.objectives.features import Adapters, attention, cells, l2, masked_l2, pool


def test_l2_by_hand() -> None:
    assert l2(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])).item() == 2.5  # (1 + 4) / 2


def test_masked_l2_leaves_out_where_neither_is_active() -> None:
    student, teacher = torch.tensor([[1.0, -1.0, 0.0, 2.0]]), torch.tensor([[0.0, -2.0, 3.0, 2.0]])
    assert masked_l2(student, teacher).item() == 2.5  # (1 + left out + 9 + 0) / 4


@pytest.mark.parametrize("distance", [l2, masked_l2])
def test_distances_do_not_grow_with_the_batch(distance: object) -> None:
    assert callable(distance)
    student, teacher = torch.randn(2, 4, 6)
    once, twice = distance(student, teacher), distance(student.repeat(2, 1), teacher.repeat(2, 1))
    torch.testing.assert_close(once, twice)


def test_adapters_are_linear_only_where_widths_differ() -> None:
    adapters = Adapters((3, 5, 5))
    features = torch.randn(2, 3), torch.randn(2, 5), torch.randn(2, 5)
    adapted = adapters(features)
    assert [tuple(a.shape) for a in adapted] == [(2, 5)] * 3
    assert adapted[1] is features[1]
    assert adapted[2] is features[2]
    assert sum(p.numel() for p in adapters.parameters()) == 3 * 5 + 5


def test_attention_is_the_mean_square_of_the_channels_each_sample_of_length_one() -> None:
    found = attention(torch.tensor([[[[3.0, 4.0]], [[1.0, -2.0]]], [[[0.0, 6.0]], [[0.0, 2.0]]]]))
    # (9 + 1) / 2 and (16 + 4) / 2 are 1 : 2; the second sample is active in one place alone
    torch.testing.assert_close(found, torch.tensor([[1 / 5**0.5, 2 / 5**0.5], [0.0, 1.0]]))


def test_groups_of_channels_are_averaged() -> None:
    deep = torch.tensor([[[1.0, 3.0, 10.0, 20.0]]])  # one cell of four channels
    assert torch.equal(pool(deep, 2, 2), torch.tensor([[[2.0, 15.0]]]))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_pool_is_adaptive_average_pooling(length: int, most: int) -> None:
    values = torch.randn(2, 3, length)
    expected = F.adaptive_avg_pool1d(values, min(length, most))
    torch.testing.assert_close(pool(values, 2, most), expected)
    torch.testing.assert_close(pool(values.transpose(1, 2), 1, most), expected.transpose(1, 2))


def test_a_map_becomes_at_most_seven_by_seven_cells() -> None:
    feature_map = torch.randn(2, 3, 10, 5)
    found = cells(feature_map)
    assert found.shape == (2, 7 * 5, 3)
    torch.testing.assert_close(found, F.adaptive_avg_pool2d(feature_map, (7, 5)).flatten(2).transpose(1, 2))


def test_tokens_are_cells() -> None:
    few, many = torch.randn(2, 16, 3), torch.randn(2, 98, 3)
    assert cells(few) is few
    torch.testing.assert_close(cells(many), (many[:, 0::2] + many[:, 1::2]) / 2)
