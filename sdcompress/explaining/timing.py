"""What exits and decisions cost on this machine, measured in turns, so that a figure has an interval."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
import numpy.typing as npt

from sdcompress.calibration.stage_timing import stage_ms
from sdcompress.data.samples import Samples
from sdcompress.runtime.engine import Engine, Float
from sdcompress.schema.explain import Interval

__all__ = ["Timing", "measure"]

_TURNS = 6  # the lowest and the highest of six enclose their median with a confidence of 1 - 2 / 2^6 = 96.9 %
_SECONDS = 0.5
_IMAGES = 64  # in a turn, to measure what deciding takes


@dataclass(frozen=True)
class Timing:
    """Milliseconds at batch 1, in R turns.

    Attributes:
        turns: float64 [R, E], until each exit; nothing is decided.
        decisions: float64 [R], to decide at one exit whether a sample leaves.
    """

    turns: npt.NDArray[np.float64]
    decisions: npt.NDArray[np.float64]

    @property
    def reach(self) -> npt.NDArray[np.float64]:
        """Until each exit, [E]: the median of the turns; nothing is decided."""
        return np.asarray(np.median(self.turns, axis=0))

    @property
    def decision(self) -> float:
        """To decide at one exit: the median of the turns."""
        return float(np.median(self.decisions))

    @property
    def decided(self) -> npt.NDArray[np.float64]:
        """Until each exit, [E], with a decision at each that is passed or left at; the last decides nothing."""
        return np.asarray(self.reach + self.decision * self._made)

    @property
    def _made(self) -> npt.NDArray[np.int64]:
        """Decisions until each exit, [E]."""
        exits = self.turns.shape[1]
        return np.asarray(np.minimum(np.arange(1, exits + 1), exits - 1))

    def mean(self, shares: npt.ArrayLike, *, against: int | None = None) -> Interval:
        """The mean ms where shares [E] of the samples leave, decisions included; or how much less than an exit's.

        Args:
            shares: of the samples that leave at each exit.
            against: position of the exit whose ms the mean is taken from.
        """
        weights = np.asarray(shares, np.float64)
        per_turn: npt.NDArray[np.float64] = (self.turns + self.decisions[:, None] * self._made) @ weights
        value = float(self.decided @ weights)
        if against is not None:
            per_turn, value = self.turns[:, against] - per_turn, float(self.reach[against]) - value
        return Interval(value=value, low=min(float(per_turn.min()), value), high=max(float(per_turn.max()), value))

    def margin(self, shares: npt.ArrayLike, exit_: int) -> Interval:
        """The most ms that an early exit's head and hand-over may take, for each image that gets there, to pay.

        Without the exit, those who leave there would leave at the next one or later; the next one is counted. What
        they save by leaving, less what deciding costs, must pay for head and hand-over of all who get there. Neither
        is measured by itself. Below 0 the exit loses even if both were for nothing.

        Args:
            shares: of the samples that leave at each exit, [E].
            exit_: position of an exit that some samples get to, not the last.
        """
        weights = np.asarray(shares, np.float64)
        leaving = weights[exit_] / weights[exit_:].sum()
        # who would leave at the next exit decides there instead, unless that is the last, which decides nothing
        deciding = 1.0 if exit_ + 2 == len(weights) else 1.0 - leaving
        per_turn = leaving * (self.turns[:, exit_ + 1] - self.turns[:, exit_]) - deciding * self.decisions
        value = float(leaving * (self.reach[exit_ + 1] - self.reach[exit_]) - deciding * self.decision)
        return Interval(value=value, low=min(float(per_turn.min()), value), high=max(float(per_turn.max()), value))

    def until(self, exit_: int) -> Interval:
        """Until one exit, without decisions."""
        column = self.turns[:, exit_]
        return Interval(value=float(self.reach[exit_]), low=float(column.min()), high=float(column.max()))


def measure(engine: Engine, samples: Samples) -> Timing:
    """Measure the stages in six turns, and what deciding adds.

    Args:
        engine: of a cascade, or of one exit.
        samples: where the images come from.
    """
    decides = engine.policy is not None and len(engine.exit_names) > 1
    turns, decisions = [], []
    for _ in range(_TURNS):
        turns.append(np.cumsum(stage_ms(engine, samples, seconds=_SECONDS)))
        decisions.append(_decision_ms(engine, samples) if decides else 0.0)
    return Timing(np.array(turns), np.array(decisions))


def _decision_ms(engine: Engine, samples: Samples) -> float:
    """The median, over images, of what leaving by the policy takes longer than being forced to the same exit."""
    chosen = np.linspace(0, len(samples) - 1, min(_IMAGES, len(samples))).astype(np.int64)
    inputs, last = engine.preprocess(samples.images(chosen)), len(engine.exit_names) - 1
    longer = []
    for image in inputs:
        exit_index = int(engine(image[None]).exit_index[0])
        decided, forced = _milliseconds(engine, image[None], None), _milliseconds(engine, image[None], exit_index)
        longer.append((decided - forced) / min(exit_index + 1, last))
    return max(float(np.median(longer)), 0.0)


def _milliseconds(engine: Engine, image: Float, exit_: int | None) -> float:
    start = perf_counter_ns()
    if exit_ is None:
        engine(image)
    else:
        engine.forced(image, exit_)
    return (perf_counter_ns() - start) / 1e6
