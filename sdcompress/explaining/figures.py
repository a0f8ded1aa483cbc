"""The figures of an explanation, from what every exit says of every sample and what it costs to get there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sdcompress.calibration.path import threshold_path
from sdcompress.evaluation import early_exit
from sdcompress.evaluation.failure_prediction import aurc, auroc
from sdcompress.evaluation.metrics import calibration_error, reliability
from sdcompress.explaining.outcomes import Outcomes
from sdcompress.explaining.timing import Timing
from sdcompress.policies import leave
from sdcompress.schema.explain import (
    Class,
    ExitFigures,
    Interval,
    Margin,
    OperatingPoint,
    Overthinking,
    PolicyFigures,
    ReliabilityBin,
    Truncation,
)

__all__ = ["Case"]

Exits = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Case:
    """N samples under E exits of one artifact.

    Attributes:
        names: of the exits.
        macs: float64 [E], until each exit, for one image.
        thresholds: [E-1], of the artifact's policy; None without one.
        shared: whether the policy has one threshold for all exits.
        outcomes: what the exits say of the samples.
        timing: what they cost; None where leaving early saves nothing (the layout ``all``).
    """

    names: tuple[str, ...]
    macs: npt.NDArray[np.float64]
    thresholds: tuple[float, ...] | None
    shared: bool
    outcomes: Outcomes
    timing: Timing | None

    @property
    def left(self) -> Exits | None:
        """Where each sample leaves by the policy, [N]; None without one."""
        return None if self.thresholds is None else leave(self.outcomes.scores, self.thresholds)

    def exits(self) -> tuple[ExitFigures, ...]:
        """Every exit on all samples, and on those that left there."""
        return tuple(self._exit(k) for k in range(len(self.names)))

    def _exit(self, k: int) -> ExitFigures:
        found, left = self.outcomes, self.left
        right, confidences = found.right[k], found.confidences[k]
        scores = found.scores[k] if k < len(found.scores) else confidences
        here = None if left is None else left == k
        return ExitFigures(
            name=self.names[k],
            accuracy=float(right.mean()),
            ece=calibration_error(confidences, right),
            reliability=tuple(ReliabilityBin(**found._asdict()) for found in reliability(confidences, right)),
            auroc=auroc(scores, right),
            aurc=aurc(scores, right),
            macs=int(self.macs[k]),
            ms=self.timing.until(k) if self.timing else None,
            share=None if here is None else float(here.mean()),
            left_accuracy=float(right[here].mean()) if here is not None and here.any() else None,
        )

    def curve(self, shaping: Outcomes) -> tuple[OperatingPoint, ...]:
        """The path of thresholds that other samples give, on these samples; none where nothing was timed."""
        if self.timing is None or len(self.names) < 2:
            return ()
        stages = np.diff(self.timing.decided, prepend=0.0)
        path = threshold_path(shaping.scores, shaping.right, stages, shared=self.shared)
        return tuple(self._point(leave(self.outcomes.scores, step), step) for step in path)

    def oracle(self) -> OperatingPoint:
        """Every sample at its first right exit; what no policy can beat in accuracy, decisions for nothing."""
        left = early_exit.oracle_exits(self.outcomes.right)
        return self._point(left, None)

    def _point(self, left: Exits, thresholds: Sequence[float] | None) -> OperatingPoint:
        shares = early_exit.exit_shares(left, len(self.names))
        timing = self.timing
        ms = None if timing is None else timing.reach if thresholds is None else timing.decided
        return OperatingPoint(
            thresholds=None if thresholds is None else tuple(thresholds),
            accuracy=early_exit.accuracy_at(left, self.outcomes.right),
            shares=tuple(shares.tolist()),
            mean_ms=None if ms is None else float(shares @ ms),
            mean_macs=float(shares @ self.macs),
        )

    def policy(self) -> PolicyFigures | None:
        """The policy against the networks that end at each exit; None without one."""
        left = self.left
        if left is None or self.thresholds is None:
            return None
        point = self._point(left, self.thresholds)
        if self.timing is None:
            return PolicyFigures(point=point, mean_ms=None)
        truncations = tuple(self._truncation(k, left, point.shares, self.timing) for k in range(len(self.names)))
        rival = next((found for found in truncations if found.accuracy >= point.accuracy), None)
        return PolicyFigures(
            point=point,
            mean_ms=self.timing.mean(point.shares),
            truncations=truncations,
            rival=rival and rival.exit,
            verdict=_verdict(rival or truncations[-1]),
            margins=self._margins(left, point.shares, self.timing),
        )

    def _margins(self, left: Exits, shares: Sequence[float], timing: Timing) -> tuple[Margin, ...]:
        reached = [float((left >= k).mean()) for k in range(len(self.names) - 1)]
        return tuple(
            Margin(exit=self.names[k], reached=share, ms=timing.margin(shares, k))
            for k, share in enumerate(reached)
            if share
        )

    def _truncation(self, k: int, left: Exits, shares: Sequence[float], timing: Timing) -> Truncation:
        right = self.outcomes.right
        value, low, high = early_exit.paired_difference(right[left, np.arange(len(left))], right[k])
        return Truncation(
            exit=self.names[k],
            accuracy=float(right[k].mean()),
            ms=float(timing.reach[k]),
            saving_ms=timing.mean(shares, against=k),
            difference=Interval(value=value, low=low, high=high),
        )

    def classes(self, names: Sequence[str]) -> tuple[Class, ...]:
        """Where the samples of each class leave; none without a policy.

        Args:
            names: of the K classes.
        """
        left, labels, right = self.left, self.outcomes.labels, self.outcomes.right
        if left is None:
            return ()
        shares = early_exit.shares_by_class(left, labels, len(self.names), len(names))
        taken, counts = right[left, np.arange(len(left))], np.bincount(labels, minlength=len(names))
        mine, last = (np.bincount(labels, weights=row, minlength=len(names)) for row in (taken, right[-1]))
        return tuple(
            Class(
                name=names[k],
                samples=int(counts[k]),
                shares=tuple(shares[k].tolist()),
                accuracy=float(mine[k] / counts[k]),
                last_accuracy=float(last[k] / counts[k]),
            )
            for k in map(int, np.flatnonzero(counts))
        )

    def overthinking(self, left: Exits | None) -> Overthinking | None:
        """What going on costs samples that are right already; None with one exit, or where ``left`` is None.

        Args:
            left: where they leave, [N].
        """
        if left is None or len(self.names) < 2:
            return None
        reach = np.zeros(len(self.names)) if self.timing is None else self.timing.reach
        found = early_exit.overthinking(left, self.outcomes.right, reach)
        return Overthinking(
            wasteful=found.wasteful,
            wasted_ms=None if self.timing is None else found.wasted,
            destructive=found.destructive,
        )


def _verdict(against: Truncation) -> Literal["wins", "no difference", "loses"]:
    saving = against.saving_ms
    if saving.value <= 0:
        return "loses"
    return "wins" if saving.low > 0 else "no difference"
