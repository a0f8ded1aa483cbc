"""Which number of rows a batch is rounded up to, and in which profile that is run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sdcompress.runtime.on_device.buckets import buckets
from sdcompress.schema.engines import BatchProfile


def profile(low: int, opt: int, high: int) -> BatchProfile:
    return BatchProfile(min=low, opt=opt, max=high)


def test_what_is_tuned_for_the_largest_and_the_powers_of_two() -> None:
    result = buckets([profile(1, 1, 1), profile(2, 6, 40)])
    assert result.rows == (1, 2, 4, 6, 8, 16, 32, 40)
    assert result.profiles == (0, 1, 1, 1, 1, 1, 1, 1)
    assert [result.index(rows) for rows in (1, 2, 3, 5, 7, 33)] == [0, 1, 2, 3, 4, 7]
    assert result.alone_in_profile(0)
    assert not result.alone_in_profile(1)


def test_one_profile_for_each_batch_gives_these_batches() -> None:
    assert buckets([profile(3, 3, 3), profile(4, 4, 4)]).rows == (3, 4)


def test_of_profiles_that_overlap_the_tightest_is_run() -> None:
    assert buckets([profile(1, 1, 1), profile(1, 8, 32)]).profiles == (0, 1, 1, 1, 1, 1)


def test_profiles_that_begin_late_take_smaller_batches_too() -> None:
    result = buckets([profile(5, 6, 7)])
    assert result.rows == (6, 7)
    assert result.index(1) == 0


@given(st.lists(st.integers(1, 100), min_size=1, max_size=5, unique=True).map(sorted), st.data())
def test_every_batch_up_to_the_largest_has_the_smallest_bucket_that_holds_it(
    tops: list[int], data: st.DataObject
) -> None:
    profiles = []
    for before, top in zip([0, *tops], tops, strict=False):
        low = data.draw(st.integers(1, before + 1))  # they may overlap, as --batch allows
        profiles.append(profile(low, data.draw(st.integers(low, top)), top))
    result = buckets(profiles)
    assert list(result.rows) == sorted(set(result.rows))
    for rows, at in zip(result.rows, result.profiles, strict=True):
        takes = [place for place, one in enumerate(profiles) if one.min <= rows <= one.max]
        assert at == takes[0] or profiles[at].opt == rows  # the tightest, or the one that is tuned for it
    for rows in range(1, result.largest + 1):
        at = result.index(rows)
        assert rows <= result.rows[at] < 2 * rows
        assert at == 0 or result.rows[at - 1] < rows
