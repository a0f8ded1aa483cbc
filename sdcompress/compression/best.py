"""Choose the best of the certified finalists by what was measured, and copy it."""

from __future__ import annotations

import shutil
from pathlib import Path

from sdcompress.artifact.write import staged
from sdcompress.schema.compression import Compression, Finalist

__all__ = ["BEST", "best_of", "write_best"]

BEST = "best"  # the folder of the copy


def best_of(record: Compression) -> str | None:
    """Return the name of the best certified finalist: the fastest, or that which loses least within the target."""
    measured = {one.name: one.latency.mean_ms for one in record.bench.records}
    target, reference_ms = record.settings.target_ms, measured[record.reference]
    certified = [one for one in record.finalists if one.state == "certified" and one.measured_as in measured]
    if target is None:
        faster = {one.name for one in record.bench.comparisons if one.verdict == "faster"}
        good = [one for one in certified if one.measured_as in faster]
        return min(good, key=lambda one: measured[one.measured_as]).candidate.name if good else None
    good = [one for one in certified if measured[one.measured_as] <= target]
    if not good or reference_ms <= target:
        return None
    return min(good, key=lambda one: (one.candidate.max_drop, one.drop or 0.0)).candidate.name


def write_best(folder: Path, winner: Finalist | None) -> None:
    """Copy the best finalist to ``best``; without one, remove that of an earlier search, whose record is replaced.

    Args:
        folder: of the search.
        winner: with its folder in that.
    """
    if winner is None:
        if (folder / BEST).exists():
            shutil.rmtree(folder / BEST)
        return
    with staged(folder / BEST, overwrite=True) as copy:
        shutil.copytree(folder / str(winner.folder), copy, dirs_exist_ok=True)
