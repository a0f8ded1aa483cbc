"""Run a split through every exit and keep scores and losses of each sample, not its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdcompress.data.samples import Samples
from sdcompress.evaluation.evaluate import signals_and_losses
from sdcompress.policies import scores
from sdcompress.policies._base import ExitPolicy, Float, Signals
from sdcompress.progress import Progress
from sdcompress.runtime.engine import Engine

__all__ = ["Outcomes", "collect"]


@dataclass(frozen=True)
class Outcomes:
    """Scores, confidences and losses of E exits on N samples.

    Attributes:
        scores: float32 [E-1, N], of all exits but the last. A sample leaves if its score reaches the threshold.
        confidences: float32 [E, N], the largest probability at the temperature of the exit; None if the task has none.
        loss: float32 [E, N], of each exit's decision.
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
    progress: Progress | None = None,
) -> Outcomes:
    """Run N samples through all exits in batches, at the temperatures of the artifact.

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
    signals, loss = signals_and_losses(engine, samples, against=samples.targets, progress=progress)
    return Outcomes(
        scores=_scores(policy, signals),
        confidences=np.stack([exit_["max_prob"] for exit_ in signals]) if "max_prob" in task.signal_names else None,
        loss=loss,
        strata=task.strata(samples.targets),
    )


def _scores(policy: ExitPolicy, signals: Sequence[Signals]) -> Float:
    """Return scores [E-1, N], also for one exit."""
    return scores(policy, signals) if len(signals) > 1 else np.empty((0, len(signals[0])), np.float32)
