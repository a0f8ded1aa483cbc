"""Choose the buckets: numbers of rows that engines of fixed shapes run with. A batch is rounded up to one of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from sdcompress.schema.engines import BatchProfile

__all__ = ["Buckets", "buckets"]


@dataclass(frozen=True)
class Buckets:
    """Numbers of rows, each with its optimisation profile.

    A captured CUDA graph has one shape, so shapes are few and fixed. Rows beyond those of the batch are computed and
    ignored.

    Attributes:
        rows: rising.
        profiles: of each, the index of its profile.
    """

    rows: tuple[int, ...]
    profiles: tuple[int, ...]

    @property
    def largest(self) -> int:
        """Return the most rows of one run; larger batches are split."""
        return self.rows[-1]

    def index(self, rows: int) -> int:
        """Return the index of the smallest bucket with at least this many rows.

        Args:
            rows: 1 to ``largest``.
        """
        index = bisect_left(self.rows, rows)
        assert index < len(self.rows), "batches above the largest bucket are split before"
        return index

    def alone_in_profile(self, bucket: int) -> bool:
        """Return whether no other bucket uses its profile."""
        return self.profiles.count(self.profiles[bucket]) == 1


def buckets(profiles: Sequence[BatchProfile]) -> Buckets:
    """Return the opt and max batch of every profile, and the powers of two in it, as buckets.

    So no batch is rounded up to twice its rows or more, except those below the smallest profile.

    Args:
        profiles: of the engines, rising; they may overlap.
    """
    profile_of = {
        rows: at
        for at, profile in reversed(list(enumerate(profiles)))  # of profiles that overlap the first is the tightest
        for rows in range(profile.min, profile.max + 1)
        if rows in {profile.opt, profile.max} or rows & (rows - 1) == 0
    }
    rows = tuple(sorted(profile_of))
    return Buckets(rows, tuple(profile_of[size] for size in rows))
