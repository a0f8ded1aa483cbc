"""The numbers of rows that engines of fixed shapes are run with: every batch is rounded up to one of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from sdcompress.schema.engines import BatchProfile

__all__ = ["Buckets", "buckets"]


@dataclass(frozen=True)
class Buckets:
    """Numbers of rows, each with the optimisation profile that it is run in.

    A captured CUDA graph is for one shape, so shapes are few and fixed: rows beyond those of the batch are computed and
    ignored.

    Attributes:
        rows: rising.
        profiles: of each, the position among the profiles.
    """

    rows: tuple[int, ...]
    profiles: tuple[int, ...]

    @property
    def largest(self) -> int:
        """The most rows at once; more are run in parts."""
        return self.rows[-1]

    def position(self, rows: int) -> int:
        """The smallest bucket that holds so many rows.

        Args:
            rows: 1 to ``largest``.
        """
        found = bisect_left(self.rows, rows)
        assert found < len(self.rows), "batches above the largest bucket are split before they come here"
        return found


def buckets(profiles: Sequence[BatchProfile], *, shared: bool) -> Buckets:
    """One bucket for the largest batch of every profile, and one for the batch it is tuned for.

    Args:
        profiles: of the engines, rising.
        shared: whether several contexts may use one profile (from TensorRT 10; with 8 each needs a profile of its own,
            so that only the largest batch of each remains).
    """
    found = {profile.max: at for at, profile in enumerate(profiles)}
    if shared:
        found |= {profile.opt: at for at, profile in enumerate(profiles) if profile.opt not in found}
    rows = tuple(sorted(found))
    return Buckets(rows, tuple(found[each] for each in rows))
