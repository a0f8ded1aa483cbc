"""Watch whether live data still is what a certificate was made for: exit shares, and audits of early exits.

A certificate is about new samples like those of the calibration. Two tests see that this has ended, without labels:

- **Exit shares** cost nothing. An alarm says that other shares of the rows take the exits than the calibration
  saw, by more than its number of samples explains.
- **Audits** run some rows to the last exit too, chosen before anything is known of them. An alarm says that the mean
  loss of the decisions against those of the last exit is above what is certified.

Either gives a false alarm, ever, with a probability of at most half of delta, if rows are drawn independently from the
calibration's source; for audits it suffices that each row's expected loss, given those before, is within the bound.
Rows are counted in blocks of 32. Nothing here starts a thread or holds a lock: calls must not overlap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from sdcompress.certification.p_values import upper_bound
from sdcompress.errors import UsageError
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.e_process import EProcess
from sdcompress.runtime.engine import Engine
from sdcompress.runtime.levels import Level, certified_levels

__all__ = ["Alarm", "AuditTest", "DriftMonitor", "ShareTest"]

Alarm = Literal["exit shares", "disagreement"]
Exits = npt.NDArray[np.int64]

_BLOCK = 32  # rows; the delay that it adds is below any that a test needs
# share of delta for the case that the calibration's own figures are off by more than their bounds
_OF_CALIBRATION = 0.2


class _Test:
    """An e-process with its level of alarm."""

    def __init__(self, means: int, delta: float, lifetime: float) -> None:
        self._process, self._alarm_at = EProcess(means, lifetime=lifetime), 1 / (delta * (1 - _OF_CALIBRATION))

    @property
    def alarm(self) -> bool:
        """Return whether there is an alarm."""
        return self._process.largest >= self._alarm_at

    @property
    def evidence(self) -> float:
        """Return the logarithm of the largest wealth so far, divided by that of an alarm: 1 or more is an alarm."""
        return math.log(self._process.largest) / math.log(self._alarm_at)


class ShareTest(_Test):
    """Test whether the rows take the exits in other shares than the calibration saw.

    Each share gets an interval by the exact bounds of Clopper and Pearson, for all exits together at a fifth of delta.
    The rest of delta is for bets that the live share is above or below it.

    Args:
        levels: with shares; those without are not tested.
        delta: probability of a false alarm, ever.
        tolerance: by which shares may differ without an alarm, e.g. 0.02 for two points.
        lifetime: see ``EProcess``, in rows.
    """

    def __init__(
        self, levels: Sequence[Level], *, delta: float = 0.025, tolerance: float = 0.0, lifetime: float = 1_000_000
    ) -> None:
        known = sum(bool(level.shares) for level in levels)
        each = delta * _OF_CALIBRATION / known if known else delta
        self._bounds = [_share_bounds(level, each, tolerance) if level.shares else None for level in levels]
        # rows whose exit is not known are counted in the last place
        self._counts = [[0] * (len(level.shares) + 1) for level in levels]
        self._counted = 0
        super().__init__(2 * max(len(level.thresholds) + 1 for level in levels), delta, lifetime)
        self.rows = 0

    def answered(self, exit_index: Exits, level: int = 0) -> None:
        """Count rows that the policy of a level has answered.

        Args:
            exit_index: of each row, int64 [B], in the order in which the rows came; -1: not known, for example because
                the request was given up. Such a row counts against every alternative.
            level: index of their level.
        """
        if self._bounds[level] is None:
            return
        counts = self._counts[level]
        self.rows += len(exit_index)
        for exit_ in exit_index.tolist():  # requests of one row are usual: numpy would take longer
            counts[exit_] += 1
            self._counted += 1
            if self._counted == _BLOCK:
                self._bet()

    def _bet(self) -> None:
        """Bet on a block of rows of all levels.

        Blocks of single levels would not do. Deep rows fill the queue, which changes the level: a block of rows that
        exit late would wait, while that of another level is counted.
        """
        counted = [
            (np.array(counts), bounds)
            for counts, bounds in zip(self._counts, self._bounds, strict=True)
            if bounds is not None and any(counts)
        ]
        ones = [np.concatenate([known[:-1], known[:-1].sum() - known[:-1]]) for known, _ in counted]
        self._process.counts(ones, [int(known.sum()) for known, _ in counted], [bounds for _, bounds in counted])
        for counts in self._counts:
            counts[:] = [0] * len(counts)
        self._counted = 0


class AuditTest(_Test):
    """Test whether the mean loss of audited rows is above what is certified.

    Args:
        levels: with the bound on their disagreement; those without are not tested.
        delta: probability of a false alarm, ever.
        lifetime: see ``EProcess``, in audits.
    """

    def __init__(self, levels: Sequence[Level], *, delta: float = 0.025, lifetime: float = 100_000) -> None:
        self._bounds = [level.disagreement for level in levels]
        super().__init__(1, delta, lifetime)
        self.audits, self.loss = 0, 0.0

    def audited(self, losses: npt.ArrayLike, level: int = 0) -> None:
        """Take the losses of audited rows, in the order in which they were chosen.

        Args:
            losses: of each row's decision against that of the last exit, [B] in [0, 1]; 0 of a row that went there.
            level: index of their level.
        """
        if (bound := self._bounds[level]) is None:
            return
        for loss in np.asarray(losses, np.float64).tolist():
            self._process.value(loss, bound)
            self.audits, self.loss = self.audits + 1, self.loss + loss


class DriftMonitor:
    """Both tests of one served artifact, and which rows are audited.

    Args:
        levels: from ``certified_levels``, at least one.
        audit_share: share of the rows that are audited, in [0, 1].
        delta: probability of a false alarm of either test, ever; not below 0.05, because the bounds on disagreement of
            ``certified_levels`` leave 0.005 to error.
        tolerance: see ``ShareTest``.
        seed: draws the audited rows; None: nobody can foresee them.

    Attributes:
        alarm: what has changed; it stays until ``reset``.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        *,
        audit_share: float = 0.01,
        delta: float = 0.05,
        tolerance: float = 0.0,
        seed: int | None = None,
    ) -> None:
        self._levels, self._audit_share, self._delta, self._tolerance = levels, audit_share, delta, tolerance
        self._random = np.random.default_rng(seed)
        self.reset()

    @classmethod
    def for_engine(cls, engine: Engine, *, audit_share: float = 0.01, tolerance: float = 0.0) -> DriftMonitor:
        """Return the monitor of an engine.

        Args:
            engine: of an artifact with a certificate.
            audit_share: share of the rows that are audited, in [0, 1].
            tolerance: see ``ShareTest``.

        Raises:
            UsageError: if no certificate says what is to be kept.
        """
        if not isinstance(engine, CascadeEngine) or not (levels := certified_levels(engine.manifest)):
            raise UsageError(
                "There is no certificate whose data could drift.",
                allowed="an artifact with certified thresholds",
                next_step="calibrate it with --confidence 95%",
            )
        return cls(levels, audit_share=audit_share, tolerance=tolerance)

    def reset(self) -> None:
        """Forget the alarm and all evidence; a new lifetime begins, with a delta of its own."""
        self.alarm: Alarm | None = None
        self.shares = ShareTest(self._levels, delta=self._delta / 2, tolerance=self._tolerance)
        self.audits = AuditTest(self._levels, delta=self._delta / 2)

    def choose(self, rows: int) -> npt.NDArray[np.bool_]:
        """Draw which of these rows are audited, bool [rows]; ask before anything is known of their answers."""
        return self._random.random(rows) < self._audit_share

    def answered(self, exit_index: Exits, level: int = 0) -> None:
        """See ``ShareTest.answered``; after an alarm nothing is counted."""
        if self.alarm is None:
            self.shares.answered(exit_index, level)
            self._look()

    def audited(self, losses: npt.ArrayLike, level: int = 0) -> None:
        """See ``AuditTest.audited``; after an alarm nothing is counted."""
        if self.alarm is None:
            self.audits.audited(losses, level)
            self._look()

    def _look(self) -> None:
        if self.audits.alarm:
            self.alarm = "disagreement"
        elif self.shares.alarm:
            self.alarm = "exit shares"


def _share_bounds(level: Level, delta: float, tolerance: float) -> npt.NDArray[np.float64]:
    """Return upper bounds on the shares [E] and on what is left of 1 beside each [E], concatenated."""
    shares = np.array(level.shares)
    totals = level.samples * np.concatenate([shares, 1 - shares])
    each = delta / len(totals)
    bounds = [upper_bound(total, level.samples, each, binary_loss=True) for total in totals.tolist()]
    return np.minimum(1.0, np.array(bounds) + tolerance)
