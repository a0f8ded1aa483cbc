"""Reasons to distrust a measurement: scatter, slow calls, drift, a busy machine. No sample is removed."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sdcompress.benchmarking.stats import sample_floor

__all__ = ["reasons"]

_MAX_CV = 0.10
_MAX_SLOW = 0.01
_MAX_DRIFT = 0.05


def reasons(
    times: npt.NDArray[np.float64],
    *,
    same_work: bool,
    threads: int,
    cores: int,
    quota: float | None,
    busy_cores: float | None,
) -> tuple[str, ...]:
    """Return why times are not stable; empty if they are.

    Args:
        times: ms of each call in order, [n].
        same_work: whether every call does the same work. If samples leave at different exits, times scatter, and only
            drift is checked.
        threads: that the engine uses.
        cores: that this process may use.
        quota: cores that the control groups allow; None without a limit.
        busy_cores: cores that other work used just before the run.
    """
    texts = []
    if len(times) < sample_floor(50.0):
        texts.append(f"{len(times)} calls, {sample_floor(50.0)} are needed for a median: measure for longer")
    if same_work:
        texts += _scatter(times)
    texts += _drift(times)
    if busy_cores is not None and busy_cores + threads > cores + 0.25:
        texts.append(f"other work kept {busy_cores:.1f} of {cores} cores busy before the run, {threads} threads wanted")
    if quota is not None and threads > quota:
        texts.append(f"a control group allows {quota:g} cores, {threads} threads wanted: they are halted in turns")
    return tuple(texts)


def _scatter(times: npt.NDArray[np.float64]) -> list[str]:
    texts = []
    cv = float(times.std() / times.mean())
    if cv > _MAX_CV:
        texts.append(f"times scatter by {cv * 100:.0f} % (standard deviation / mean), more than {_MAX_CV * 100:.0f} %")
    slow = float((times > 3.0 * np.median(times)).mean())
    if slow > _MAX_SLOW:
        texts.append(f"{slow * 100:.1f} % of the calls took more than three medians, more than {_MAX_SLOW * 100:.0f} %")
    return texts


def _drift(times: npt.NDArray[np.float64]) -> list[str]:
    """Compare both halves; a difference counts above 5 % and three standard errors."""
    half = len(times) // 2
    if half < 2:
        return []
    first, second = times[:half], times[half:]
    drift = float(second.mean() / first.mean() - 1.0)
    chance = math.hypot(float(first.std()) / math.sqrt(half), float(second.std()) / math.sqrt(len(second)))
    if abs(drift) > _MAX_DRIFT and abs(float(second.mean() - first.mean())) > 3.0 * chance:
        return [f"calls drifted by {drift * 100:+.0f} % from the first half to the second"]
    return []
