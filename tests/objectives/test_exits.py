"""Sums over exits."""

from __future__ import annotations

import torch

from sdcompress.objectives.exits import total


def test_terms_are_added_from_shallow_to_deep() -> None:
    # In float32 1e8 + 1 is 1e8, so only one order gives 1.
    assert total(torch.tensor(x) for x in (1e8, -1e8, 1.0)).item() == 1.0
    assert total(torch.tensor(x) for x in (1.0, 1e8, -1e8)).item() == 0.0
