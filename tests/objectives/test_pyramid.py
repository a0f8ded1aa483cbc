"""The pyramid by hand: which maps it fuses, in what shares, and how it brings them to one size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from sdcompress.objectives.pyramid import Pyramid


def plain(maps: Sequence[Tensor]) -> Pyramid:
    """A pyramid of one channel that fuses and does nothing else; its only output is the mean of the deepest map."""
    made = Pyramid([tuple(one.shape[1:]) for one in maps], (1,), width=1)
    for lateral in made.lateral:
        lateral.weight.data.fill_(1)
        lateral.bias.data.zero_()
    for fusion in (*made.down, *made.up):
        fusion.convolution = nn.Identity()
    made.classifier.weight.data.fill_(1)
    made.classifier.bias.data.zero_()
    return made


def test_what_comes_down_goes_up_again() -> None:
    maps = [torch.full((2, 1, *size), value) for size, value in (((4, 8), 1.0), ((2, 4), 2.0), ((1, 2), 6.0))]
    refined, logits = plain(maps)(maps)
    # down: (2 + 6) / 2 = 4 and (1 + 4) / 2 = 2.5; up: (2 + 4 + 2.5) / 3 = 17 / 6 and (6 + 17 / 6) / 2 = 53 / 12
    for level, (found, value) in enumerate(zip(refined, (2.5, 17 / 6, 53 / 12), strict=True)):
        torch.testing.assert_close(found, torch.full_like(maps[level], value))
    torch.testing.assert_close(logits, torch.full((2, 1), 53 / 12))


def test_maps_grow_by_their_nearest_cells_and_shrink_to_the_means_of_cells() -> None:
    deep = torch.tensor([[[[0.0, 4.0]]]])
    refined, logits = plain([torch.zeros(1, 1, 2, 4), deep])([torch.tensor([[[[8.0, 0, 0, 0], [0, 0, 0, 0]]]]), deep])
    assert refined[0].tolist() == [[[[4, 0, 2, 2], [0, 0, 2, 2]]]]
    assert refined[1].tolist() == [[[[0.5, 3]]]]  # halfway between 0 and 4 / 4, between 4 and 2
    assert logits.tolist() == [[1.75]]


def test_shares_of_a_fusion_are_weights_that_add_up_to_one() -> None:
    maps = [torch.full((1, 1, 2, 2), 1.0), torch.full((1, 1, 1, 1), 5.0)]
    made = plain(maps)
    made.down[0].weights.data = torch.tensor([math.log(math.e - 1), math.log(math.e**3 - 1)])  # softplus: 1 and 3
    refined, _ = made(maps)
    assert refined[0].mean().item() == pytest.approx((1 + 3 * 5) / 4, rel=1e-5)


def test_levels_have_the_sizes_of_the_maps_and_one_width() -> None:
    shapes = [(4, 6, 8), (6, 3, 4), (8, 2, 3)]
    refined, logits = Pyramid(shapes, (5,), width=8)([torch.randn(3, *shape) for shape in shapes])
    assert [tuple(level.shape) for level in refined] == [(3, 8, 6, 8), (3, 8, 3, 4), (3, 8, 2, 3)]
    assert logits.shape == (3, 5)
