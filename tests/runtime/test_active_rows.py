"""Which rows move where: every plan leaves exactly those that stay, in as few copies as there are blocks."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sdcompress.runtime.active_rows import ActiveRows, Moves


@given(st.lists(st.booleans(), min_size=2, max_size=40).filter(lambda mask: 0 < sum(mask) < len(mask)))
def test_the_rows_that_stay_are_in_front_after_the_moves(leaves: list[bool]) -> None:
    batch = ActiveRows(len(leaves))
    mask = np.array(leaves)
    assert not batch.exit_early(mask.copy(), lambda: np.zeros((len(leaves), 2), np.float32), 0)
    moves = batch.compact()
    rows = np.arange(len(leaves))
    by_block = rows.copy()
    for to, start, count in moves.blocks():
        assert to + count <= moves.rows <= start  # no overlap, and never into what is dropped
        by_block[to : to + count] = by_block[start : start + count]
    assert moves.rows == batch.allocated == batch.active == (~mask).sum()
    assert set(moves.within(rows).tolist()) == set(np.flatnonzero(~mask).tolist())
    np.testing.assert_array_equal(by_block[: moves.rows], rows[: moves.rows])
    assert len(moves.holes) <= mask.sum()


def test_neighbours_are_one_copy() -> None:
    moves = Moves(np.array([1, 2, 3, 6, 7]), np.array([10, 11, 12, 13, 20]), 10)
    assert list(moves.blocks()) == [(1, 10, 3), (6, 13, 1), (7, 20, 1)]
    assert list(Moves(np.array([], np.int64), np.array([], np.int64), 4).blocks()) == []


def test_logits_are_asked_for_only_where_some_leave() -> None:
    asked = []

    def logits() -> np.ndarray:
        asked.append(1)
        return np.ones((3, 2), np.float32)

    batch = ActiveRows(3)
    assert not batch.exit_early(np.zeros(3, bool), logits, 0)
    assert not batch.exit_early(np.array([True, False, False]), logits, 1)
    assert batch.exit_early(np.array([True, True, True]), logits, 2)
    assert len(asked) == 1
    found = batch.gather(np.full((3, 2), 2, np.float32), 2)
    assert found.exit_index.tolist() == [1, 2, 2]
    assert found.outputs[:, 0].tolist() == [1, 2, 2]
