"""Time exits and decisions on this machine in several turns, which give intervals."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
import numpy.typing as npt

from sdcompress.calibration.stage_timing import stage_ms
from sdcompress.data.samples import Samples
from sdcompress.modalities import Inputs
from sdcompress.runtime.engine import Engine
from sdcompress.schema.explain import Interval

__all__ = ["Timing", "measure"]

_TURNS = 6  # the lowest and the highest of six enclose their median with a confidence of 1 - 2 / 2^6 = 96.9 %
_SECONDS = 0.5
_IMAGES = 64  # in a turn, to time decisions


@dataclass(frozen=True)
class Timing:
    """Milliseconds at batch 1, in R turns.

    Attributes:
        turns: float64 [R, E], up to each exit, without decisions.
        decisions: float64 [R], one decision whether a sample leaves.
    """

    turns: npt.NDArray[np.float64]
    decisions: npt.NDArray[np.float64]

    @property
    def reach_ms(self) -> npt.NDArray[np.float64]:
        """Ms up to each exit without decisions, [E]: the median of the turns."""
        return np.asarray(np.median(self.turns, axis=0))

    @property
    def decision(self) -> float:
        """Ms of one decision: the median of the turns."""
        return float(np.median(self.decisions))

    @property
    def reach_ms_with_decisions(self) -> npt.NDArray[np.float64]:
        """Ms up to each exit, [E], with a decision at each exit except the last."""
        return np.asarray(self.reach_ms + self.decision * self._decision_counts)

    @property
    def _decision_counts(self) -> npt.NDArray[np.int64]:
        """Number of decisions up to each exit, [E]."""
        exits = self.turns.shape[1]
        return np.asarray(np.minimum(np.arange(1, exits + 1), exits - 1))

    def mean(self, shares: npt.ArrayLike, *, against: int | None = None) -> Interval:
        """Return the mean ms with decisions, or its saving against one exit alone.

        Args:
            shares: of the samples that leave at each exit, [E].
            against: index of the exit to compare with; None: no comparison.
        """
        weights = np.asarray(shares, np.float64)
        per_turn: npt.NDArray[np.float64] = (self.turns + self.decisions[:, None] * self._decision_counts) @ weights
        value = float(self.reach_ms_with_decisions @ weights)
        if against is not None:
            per_turn, value = self.turns[:, against] - per_turn, float(self.reach_ms[against]) - value
        return Interval(value=value, low=min(float(per_turn.min()), value), high=max(float(per_turn.max()), value))

    def margin(self, shares: npt.ArrayLike, exit_: int) -> Interval:
        """Return the most ms that head and hand-over of an exit may take, for each sample that reaches it, to pay.

        Without the exit, its samples are assumed to leave at the next one. What they save, less decisions, must
        cover head and hand-over of all samples that reach the exit. Neither is measured by itself. Below 0 the exit
        does not pay even if both took no time.

        Args:
            shares: of the samples that leave at each exit, [E].
            exit_: index of an exit that some samples reach, not the last.
        """
        weights = np.asarray(shares, np.float64)
        leaving = weights[exit_] / weights[exit_:].sum()
        # its samples would be decided at the next exit instead, unless that is the last, which decides nothing
        deciding = 1.0 if exit_ + 2 == len(weights) else 1.0 - leaving
        per_turn = leaving * (self.turns[:, exit_ + 1] - self.turns[:, exit_]) - deciding * self.decisions
        value = float(leaving * (self.reach_ms[exit_ + 1] - self.reach_ms[exit_]) - deciding * self.decision)
        return Interval(value=value, low=min(float(per_turn.min()), value), high=max(float(per_turn.max()), value))

    def until(self, exit_: int) -> Interval:
        """Return the ms up to one exit, without decisions."""
        column = self.turns[:, exit_]
        return Interval(value=float(self.reach_ms[exit_]), low=float(column.min()), high=float(column.max()))


def measure(engine: Engine, samples: Samples) -> Timing:
    """Time stages and decisions in six turns.

    Args:
        engine: of a cascade, or of one exit.
        samples: the source of the inputs.
    """
    decides = engine.policy is not None and len(engine.exit_names) > 1
    turns, decisions = [], []
    for _ in range(_TURNS):
        turns.append(np.cumsum(stage_ms(engine, samples, seconds=_SECONDS)))
        decisions.append(_decision_ms(engine, samples) if decides else 0.0)
    return Timing(np.array(turns), np.array(decisions))


def _decision_ms(engine: Engine, samples: Samples) -> float:
    """Return the median extra ms of a decision by the policy, compared with a forced exit."""
    chosen = np.linspace(0, len(samples) - 1, min(_IMAGES, len(samples))).astype(np.int64)
    inputs, last = engine.modality.collate(samples.examples(chosen)), len(engine.exit_names) - 1
    longer = []
    for row in range(len(inputs)):
        sample = inputs[row : row + 1]
        exit_index = int(engine(sample).exit_index[0])
        decided, forced = _milliseconds(engine, sample, None), _milliseconds(engine, sample, exit_index)
        longer.append((decided - forced) / min(exit_index + 1, last))
    return max(float(np.median(longer)), 0.0)


def _milliseconds(engine: Engine, inputs: Inputs, exit_: int | None) -> float:
    start = perf_counter_ns()
    if exit_ is None:
        engine(inputs)
    else:
        engine.forced(inputs, exit_)
    return (perf_counter_ns() - start) / 1e6
