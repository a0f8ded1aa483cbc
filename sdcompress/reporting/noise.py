"""What is said of times that scatter: once for a whole benchmark, with what to do about it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sdcompress.schema.report import BenchRecord

__all__ = ["noise"]

_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
_MOST_NAMED = 3
_ADVICE = (
    "This is the machine, not the networks: stop other work on it and measure again, for longer (--duration 30s)."
    " Speed-ups suffer less, because the networks took turns."
)


def noise(records: Sequence[BenchRecord]) -> str | None:
    """One paragraph on all measurements that are not steady; None where all are.

    Args:
        records: of one benchmark.
    """
    noisy = [record for record in records if not record.stable]
    if not noisy:
        return None
    kinds: dict[str, list[str]] = {}
    for record in noisy:
        for reason in record.reasons:
            kinds.setdefault(_NUMBER.sub("#", reason), []).append(reason)
    reasons = "; ".join(_strongest(found) for found in kinds.values())
    return f"The times of {_which(noisy, len(records))} are not steady{': ' if reasons else ''}{reasons}. {_ADVICE}"


def _which(noisy: Sequence[BenchRecord], total: int) -> str:
    if len(noisy) > _MOST_NAMED:
        return f"{len(noisy)} of {total} measurements"
    return " and ".join(f"{record.name} ({record.scenario}, batch {record.batch})" for record in noisy)


def _strongest(reasons: Sequence[str]) -> str:
    """Of reasons that differ in their numbers only, the one with the largest, and how many there are."""
    found = max(reasons, key=lambda reason: abs(float(_NUMBER.findall(reason)[0])) if _NUMBER.search(reason) else 0.0)
    if len(set(reasons)) == 1:
        return found
    return f"{found} (the most of {len(reasons)})"
