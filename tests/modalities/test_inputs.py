"""Padding: the length of a row, and rows without what is padding in all of them."""

from __future__ import annotations

import numpy as np

from sdcompress.modalities import Inputs

MASK = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 1], [0, 0, 0, 0]])


def test_a_row_ends_behind_its_last_token_and_one_without_tokens_nowhere() -> None:
    assert Inputs({"ids": MASK, "mask": MASK}, "mask").lengths.tolist() == [2, 3, 4, 4]


def test_nothing_is_padded_without_a_mask() -> None:
    inputs = Inputs({"ids": MASK})
    assert inputs.lengths.tolist() == [0, 0, 0, 0]
    assert inputs[:1].arrays["ids"].shape == (1, 4)


def test_rows_lose_what_is_padding_in_all_of_them() -> None:
    ids = np.arange(16).reshape(4, 4)
    rows = Inputs({"ids": ids, "mask": MASK}, "mask")[np.array([1, 0])]
    assert rows.arrays["ids"].tolist() == [[4, 5, 6], [0, 1, 2]]
    assert rows.arrays["mask"].tolist() == [[1, 0, 1], [1, 1, 0]]
    assert Inputs({"ids": ids, "mask": MASK}, "mask")[:0].arrays["ids"].shape == (0, 1)
