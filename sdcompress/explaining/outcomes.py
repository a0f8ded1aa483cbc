"""Run a split through every exit and keep a few numbers of each sample, never all outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdcompress.calibration.observe import losses_of
from sdcompress.data.samples import Samples
from sdcompress.evaluation.evaluate import exit_signals
from sdcompress.policies import scores
from sdcompress.policies._base import ExitPolicy, Float, Signals
from sdcompress.runtime.engine import Engine

__all__ = ["Outcomes", "collect"]


@dataclass(frozen=True)
class Outcomes:
    """What E exits say of N samples.

    Attributes:
        scores: float32 [E-1, N], of all exits but the last: a sample leaves where it is at least the threshold.
        confidences: float32 [E, N], the largest probability at the exit's temperature; None if the task has none.
        loss: float32 [E, N], of the exit's decision.
        strata: int64 [N]; None if the task has none.
    """

    scores: Float
    confidences: Float | None
    loss: Float
    strata: npt.NDArray[np.int64] | None


def collect(
    engine: Engine,
    samples: Samples,
    policy: ExitPolicy,
    progress: Callable[[int, int], None] | None = None,
) -> Outcomes:
    """Run N samples through all exits, batch by batch, at the artifact's temperatures.

    Args:
        engine: what is run.
        samples: N of them.
        policy: gives the scores.
        progress: called with (samples done, all samples).

    Raises:
        DataError: if there are no samples, or they do not fit the network.
        VerificationError: if an output is not finite.
    """
    task, signals = engine.task, exit_signals(engine, samples, progress=progress)
    return Outcomes(
        scores=_scores(policy, signals),
        confidences=np.stack([exit_["max_prob"] for exit_ in signals]) if "max_prob" in task.signal_names else None,
        loss=losses_of(task, signals, samples.labels),
        strata=task.strata(samples.labels),
    )


def _scores(policy: ExitPolicy, signals: Sequence[Signals]) -> Float:
    """[E-1, N], also of one exit, where nothing is decided."""
    return scores(policy, signals) if len(signals) > 1 else np.empty((0, len(signals[0])), np.float32)
