"""Which number of rows a batch is rounded up to, and in which profile that is run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sdcompress.runtime.resident.buckets import buckets
from sdcompress.schema.engines import BatchProfile


def profile(low: int, opt: int, high: int) -> BatchProfile:
    return BatchProfile(min=low, opt=opt, max=high)


def test_one_for_each_largest_batch_and_for_each_that_is_tuned_for() -> None:
    made = buckets([profile(1, 1, 1), profile(2, 8, 32)], shared=True)
    assert made.rows == (1, 8, 32)
    assert made.profiles == (0, 1, 1)
    assert [made.position(rows) for rows in (1, 2, 8, 9, 32)] == [0, 1, 1, 2, 2]


def test_where_a_profile_serves_one_context_only_its_largest_batch_is_left() -> None:
    made = buckets([profile(1, 1, 1), profile(2, 8, 32)], shared=False)
    assert made.rows == (1, 32)
    assert made.profiles == (0, 1)


def test_profiles_that_begin_late_take_smaller_batches_too() -> None:
    made = buckets([profile(4, 8, 16)], shared=False)
    assert made.position(1) == 0
    assert made.largest == 16


@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=5, unique=True).map(sorted),
    st.booleans(),
    st.data(),
)
def test_every_batch_up_to_the_largest_has_the_smallest_bucket_that_holds_it(
    tops: list[int], shared: bool, data: st.DataObject
) -> None:
    lows = [1, *(top + 1 for top in tops)]
    profiles = [profile(low, data.draw(st.integers(low, top)), top) for low, top in zip(lows, tops, strict=False)]
    made = buckets(profiles, shared=shared)
    assert list(made.rows) == sorted(set(made.rows))
    for rows, at in zip(made.rows, made.profiles, strict=True):
        assert profiles[at].min <= rows <= profiles[at].max
    for rows in range(1, made.largest + 1):
        at = made.position(rows)
        assert made.rows[at] >= rows
        assert at == 0 or made.rows[at - 1] < rows
