"""Time exits and decisions on this machine in several rounds, which give intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns

import numpy as np
import numpy.typing as npt

from sdcompress.calibration.stage_timing import stage_ms, timing_inputs
from sdcompress.data.samples import Samples
from sdcompress.runtime.engine import Engine
from sdcompress.schema.explain import Interval

__all__ = ["Timing", "measure"]

Float64 = npt.NDArray[np.float64]

_ROUNDS = 6  # the lowest and the highest of six enclose their median with a confidence of 1 - 2 / 2^6 = 96.9 %
_SECONDS = 0.5
_SAMPLES = 64  # in a round, to time decisions


@dataclass(frozen=True)
class Timing:
    """Milliseconds at batch 1, in R rounds.

    Attributes:
        reach_ms_by_round: float64 [R, E], up to each exit, without decisions.
        decision_ms_by_round: float64 [R], of one decision whether a sample exits.
    """

    reach_ms_by_round: npt.NDArray[np.float64]
    decision_ms_by_round: npt.NDArray[np.float64]

    @property
    def reach_ms(self) -> npt.NDArray[np.float64]:
        """Return the ms up to each exit without decisions, [E]: the median of the rounds."""
        return np.asarray(np.median(self.reach_ms_by_round, axis=0))

    @property
    def decision_ms(self) -> float:
        """Return the ms of one decision: the median of the rounds."""
        return float(np.median(self.decision_ms_by_round))

    @property
    def reach_ms_with_decisions(self) -> npt.NDArray[np.float64]:
        """Return the ms up to each exit, [E], with a decision at each exit but the last."""
        return np.asarray(self.reach_ms + self.decision_ms * self._decision_counts)

    @property
    def _decision_counts(self) -> npt.NDArray[np.int64]:
        """Return the number of decisions up to each exit, [E]."""
        exits = self.reach_ms_by_round.shape[1]
        return np.asarray(np.minimum(np.arange(1, exits + 1), exits - 1))

    def mean(self, shares: npt.ArrayLike) -> Interval:
        """Return the mean ms with decisions, for these shares of samples at each exit, [E]."""
        weights = np.asarray(shares, np.float64)
        return _interval(self._mean_by_round(weights), float(self.reach_ms_with_decisions @ weights))

    def saving(self, shares: npt.ArrayLike, k: int) -> Interval:
        """Return the mean ms that exit k alone takes more than a policy with these shares of samples at each exit."""
        weights = np.asarray(shares, np.float64)
        value = float(self.reach_ms[k]) - float(self.reach_ms_with_decisions @ weights)
        return _interval(self.reach_ms_by_round[:, k] - self._mean_by_round(weights), value)

    def _mean_by_round(self, weights: Float64) -> Float64:
        decisions = self.decision_ms_by_round[:, None] * self._decision_counts
        return np.asarray((self.reach_ms_by_round + decisions) @ weights)

    def margin(self, shares: npt.ArrayLike, k: int) -> Interval:
        """Return the largest ms of head and transition of exit k, per sample that reaches it, with which it pays.

        Without the exit, its samples are assumed to exit at the next one. What they save, less decisions, must cover
        head and transition of all samples that reach the exit. Neither is measured by itself. Below 0 the exit does not
        pay even if both took no time.

        Args:
            shares: of the samples at each exit, [E].
            k: index of an exit that some samples reach, not the last.
        """
        weights = np.asarray(shares, np.float64)
        share = weights[k] / weights[k:].sum()
        # without this exit its samples need a decision at the next one, unless that is the last, which has none
        decisions = 1.0 if k + 2 == len(weights) else 1.0 - share
        stage_ms_by_round = self.reach_ms_by_round[:, k + 1] - self.reach_ms_by_round[:, k]
        value = float(share * (self.reach_ms[k + 1] - self.reach_ms[k]) - decisions * self.decision_ms)
        return _interval(share * stage_ms_by_round - decisions * self.decision_ms_by_round, value)

    def until(self, k: int) -> Interval:
        """Return the ms up to exit k, without decisions."""
        return _interval(self.reach_ms_by_round[:, k], float(self.reach_ms[k]))


def _interval(by_round: Float64, value: float) -> Interval:
    """Return a value with the lowest and the highest round as its interval."""
    return Interval(value=value, low=min(float(by_round.min()), value), high=max(float(by_round.max()), value))


def measure(engine: Engine, samples: Samples) -> Timing:
    """Time stages and decisions in six rounds.

    Args:
        engine: of a cascade, or of one exit.
        samples: the source of the inputs.
    """
    decides = engine.policy is not None and len(engine.exit_names) > 1
    reach_ms, decisions_ms = [], []
    for _ in range(_ROUNDS):
        reach_ms.append(np.cumsum(stage_ms(engine, samples, seconds=_SECONDS)))
        decisions_ms.append(_decision_ms(engine, samples) if decides else 0.0)
    return Timing(np.array(reach_ms), np.array(decisions_ms))


def _decision_ms(engine: Engine, samples: Samples) -> float:
    """Return the median extra ms of a decision by the policy, compared with a forced exit."""
    inputs, last = timing_inputs(engine, samples, min(_SAMPLES, len(samples))), len(engine.exit_names) - 1
    extra_ms = []
    for row in range(len(inputs)):
        sample = inputs[row : row + 1]
        exit_index = int(engine(sample).exit_index[0])
        decided = _milliseconds(partial(engine, sample))
        forced = _milliseconds(partial(engine.forced, sample, exit_index))
        extra_ms.append((decided - forced) / min(exit_index + 1, last))
    return max(float(np.median(extra_ms)), 0.0)


def _milliseconds(call: Callable[[], object]) -> float:
    start = perf_counter_ns()
    call()
    return (perf_counter_ns() - start) / 1e6
