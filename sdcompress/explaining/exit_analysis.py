"""Compute the figures of an explanation from the scores and losses of all exits, and the times to reach them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from sdcompress.calibration.threshold_path import threshold_path
from sdcompress.data.samples import Samples
from sdcompress.evaluation.exit_outcomes import exit_outcomes
from sdcompress.evaluation.paired import paired_difference
from sdcompress.evaluation.strata import stratum_scores
from sdcompress.explaining import early_exit
from sdcompress.explaining.early_exit import aurc, auroc, losses_at
from sdcompress.explaining.timing import Timing
from sdcompress.policies import exit_index_of, scores
from sdcompress.policies._base import ExitPolicy, Float
from sdcompress.progress import Progress
from sdcompress.runtime.engine import Engine
from sdcompress.schema.explain import (
    BreakEven,
    ExitFigures,
    Interval,
    OperatingPoint,
    Overthinking,
    PolicyFigures,
    ReliabilityBin,
    Stratum,
    Truncation,
)
from sdcompress.tasks import metric_of, standard_error
from sdcompress.tasks._probabilities import calibration_error, reliability

__all__ = ["ExitAnalysis", "Outcomes", "collect"]

Exits = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Outcomes:
    """Scores, confidences and losses of E exits on N samples.

    Attributes:
        scores: float32 [E-1, N], of all exits but the last. A sample exits if its score reaches the threshold.
        confidences: float32 [E, N], the largest probability at the temperature of the exit; None if the task has none.
        loss: float32 [E, N], of each exit's decision.
        strata: int64 [N]; None if the task has none.
        binary_loss: whether every loss is 0 or 1, so that confidences have a calibration error.
    """

    scores: Float
    confidences: Float | None
    loss: Float
    strata: npt.NDArray[np.int64] | None
    binary_loss: bool


def collect(
    engine: Engine,
    samples: Samples,
    policy: ExitPolicy,
    progress: Progress | None = None,
) -> Outcomes:
    """Run samples through all exits, and return scores and losses at the temperatures of the artifact.

    Args:
        engine: of the artifact.
        samples: N samples with targets.
        policy: computes the scores.
        progress: called with (samples done, all samples).

    Raises:
        DataError: if there are no samples, or they do not fit the network.
        VerificationError: if an output is not finite.
    """
    task = engine.task
    signals, loss, _ = exit_outcomes(engine, samples, progress=progress)
    return Outcomes(
        scores=scores(policy, signals),
        confidences=np.stack([exit_["max_prob"] for exit_ in signals]) if "max_prob" in task.signal_names else None,
        loss=loss,
        binary_loss=task.binary_loss,
        strata=task.strata(samples.targets),
    )


@dataclass(frozen=True)
class ExitAnalysis:
    """Figures of the E exits of one artifact on N samples.

    Attributes:
        names: of the exits.
        macs: float64 [E], MACs of one sample up to each exit.
        thresholds: [E-1], of the policy of the artifact; None without one.
        shared: whether the policy has one threshold for all exits.
        outcomes: scores and losses of the exits on the samples.
        timing: times up to the exits; None for the layout ``all``, in which early exit saves nothing.
    """

    names: tuple[str, ...]
    macs: npt.NDArray[np.float64]
    thresholds: tuple[float, ...] | None
    shared: bool
    outcomes: Outcomes
    timing: Timing | None

    @cached_property
    def exit_index(self) -> Exits | None:
        """Return the exit index of each sample under the policy, int64 [N]; None without a policy."""
        return None if self.thresholds is None else exit_index_of(self.outcomes.scores, self.thresholds)

    def exits(self) -> tuple[ExitFigures, ...]:
        """Return the figures of every exit, on all samples and on those that exit there."""
        return tuple(self._exit(k) for k in range(len(self.names)))

    def _exit(self, k: int) -> ExitFigures:
        outcomes, exit_index = self.outcomes, self.exit_index
        loss = outcomes.loss[k]
        confidences = None if outcomes.confidences is None else outcomes.confidences[k]
        exit_scores = outcomes.scores[k] if k < len(outcomes.scores) else confidences
        calibrated = confidences if outcomes.binary_loss else None
        bins = () if calibrated is None else reliability(calibrated, 1 - loss)
        exits_here = None if exit_index is None else exit_index == k
        return ExitFigures(
            name=self.names[k],
            metric=metric_of(loss),
            standard_error=standard_error(loss),
            ece=None if calibrated is None else calibration_error(calibrated, 1 - loss),
            reliability=tuple(ReliabilityBin(**bin_._asdict()) for bin_ in bins),
            auroc=None if exit_scores is None else auroc(exit_scores, loss),
            aurc=None if exit_scores is None else aurc(exit_scores, loss),
            macs=int(self.macs[k]),
            ms=self.timing.until(k) if self.timing else None,
            share=None if exits_here is None else float(exits_here.mean()),
            exited_metric=metric_of(loss[exits_here]) if exits_here is not None and exits_here.any() else None,
        )

    def curve(self, path_outcomes: Outcomes) -> tuple[OperatingPoint, ...]:
        """Return the path of thresholds chosen on other samples, evaluated on these; empty without timing."""
        if self.timing is None or len(self.names) < 2:
            return ()
        stages = np.diff(self.timing.reach_ms_with_decisions, prepend=0.0)
        path = threshold_path(path_outcomes.scores, path_outcomes.loss, stages, shared=self.shared)
        return tuple(self._point(exit_index_of(self.outcomes.scores, step), step) for step in path)

    def oracle(self) -> OperatingPoint:
        """Return the operating point of an oracle: every sample exits at its first exit with the lowest loss."""
        exit_index = early_exit.oracle_exits(self.outcomes.loss)
        return self._point(exit_index, None)

    def _point(self, exit_index: Exits, thresholds: Sequence[float] | None) -> OperatingPoint:
        shares = early_exit.exit_shares(exit_index, len(self.names))
        timing, losses = self.timing, losses_at(exit_index, self.outcomes.loss)
        ms = None if timing is None else timing.reach_ms if thresholds is None else timing.reach_ms_with_decisions
        return OperatingPoint(
            thresholds=None if thresholds is None else tuple(thresholds),
            metric=metric_of(losses),
            standard_error=standard_error(losses),
            shares=tuple(shares.tolist()),
            mean_ms=None if ms is None else float(shares @ ms),
            mean_macs=float(shares @ self.macs),
        )

    def policy(self) -> PolicyFigures | None:
        """Compare the policy with the networks truncated at each exit; None without a policy."""
        exit_index = self.exit_index
        if exit_index is None or self.thresholds is None:
            return None
        point = self._point(exit_index, self.thresholds)
        if self.timing is None:
            return PolicyFigures(point=point, mean_ms=None)
        truncations = tuple(self._truncation(k, exit_index, point.shares, self.timing) for k in range(len(self.names)))
        rival = next((truncation for truncation in truncations if truncation.metric >= point.metric), None)
        return PolicyFigures(
            point=point,
            mean_ms=self.timing.mean(point.shares),
            truncations=truncations,
            rival=rival and rival.exit,
            verdict=_verdict(rival or truncations[-1]),
            break_even=self._margins(exit_index, point.shares, self.timing),
        )

    def _margins(self, exit_index: Exits, shares: Sequence[float], timing: Timing) -> tuple[BreakEven, ...]:
        reached = [float((exit_index >= k).mean()) for k in range(len(self.names) - 1)]
        return tuple(
            BreakEven(exit=self.names[k], reached=share, ms=timing.margin(shares, k))
            for k, share in enumerate(reached)
            if share
        )

    def _truncation(self, k: int, exit_index: Exits, shares: Sequence[float], timing: Timing) -> Truncation:
        loss = self.outcomes.loss
        value, low, high = paired_difference(losses_at(exit_index, loss), loss[k])
        return Truncation(
            exit=self.names[k],
            metric=metric_of(loss[k]),
            ms=float(timing.reach_ms[k]),
            saving_ms=timing.saving(shares, k),
            difference=Interval(value=value, low=low, high=high),
        )

    def strata(self, names: Sequence[str]) -> tuple[Stratum, ...]:
        """Return exit shares and metric of each stratum; empty without a policy or without strata.

        Args:
            names: of the K strata.
        """
        exit_index, strata, loss = self.exit_index, self.outcomes.strata, self.outcomes.loss
        if exit_index is None or strata is None:
            return ()
        scores = stratum_scores(names, strata, losses_at(exit_index, loss), [*loss], exit_index)
        fields = set(Stratum.model_fields)
        return tuple(Stratum(**score.model_dump(include=fields)) for score in scores if score.samples)

    def overthinking(self, exit_index: Exits | None) -> Overthinking | None:
        """Return the cost of computation after the lowest loss; None with one exit or without ``exit_index``.

        Args:
            exit_index: exit of each sample, int64 [N].
        """
        if exit_index is None or len(self.names) < 2:
            return None
        reach = np.zeros(len(self.names)) if self.timing is None else self.timing.reach_ms
        figures = early_exit.overthinking(exit_index, self.outcomes.loss, reach)
        return Overthinking(
            wasteful=figures.wasteful,
            wasted_ms=None if self.timing is None else figures.wasted,
            destructive=figures.destructive,
        )


def _verdict(baseline: Truncation) -> Literal["wins", "no difference", "loses"]:
    saving = baseline.saving_ms
    if saving.value <= 0:
        return "loses"
    return "wins" if saving.low > 0 else "no difference"
