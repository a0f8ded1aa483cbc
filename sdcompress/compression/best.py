"""Choose the best of the certified finalists by what was measured."""

from __future__ import annotations

from sdcompress.schema.compression import Compression

__all__ = ["best_of"]


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
