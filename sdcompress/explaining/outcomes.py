"""Run a split through every exit and keep scores and correctness of each sample, not its logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdcompress.data.samples import Samples
from sdcompress.evaluation.evaluate import exit_signals
from sdcompress.policies import scores
from sdcompress.policies._base import ExitPolicy, Float, Signals
from sdcompress.progress import Progress
from sdcompress.runtime.engine import Engine

__all__ = ["Outcomes", "collect"]


@dataclass(frozen=True)
class Outcomes:
    """Scores, confidences and correctness of E exits on N samples.

    Attributes:
        scores: float32 [E-1, N], of all exits but the last. A sample leaves if its score reaches the threshold.
        confidences: float32 [E, N], the largest probability at the temperature of the exit.
        right: bool [E, N], whether the prediction is the label.
        labels: int64 [N].
    """

    scores: Float
    confidences: Float
    right: npt.NDArray[np.bool_]
    labels: npt.NDArray[np.int64]


def collect(
    engine: Engine,
    samples: Samples,
    policy: ExitPolicy,
    progress: Progress | None = None,
) -> Outcomes:
    """Run N samples through all exits in batches, at the temperatures of the artifact.

    Args:
        engine: of the artifact.
        samples: N samples with labels.
        policy: computes the scores.
        progress: called with (images done, all images).

    Raises:
        DataError: if there are no samples, or their classes or size are not those of the network.
        VerificationError: if a logit is not finite.
    """
    signals = exit_signals(engine, samples, progress=progress)
    return Outcomes(
        scores=_scores(policy, signals),
        confidences=np.stack([exit_["max_prob"] for exit_ in signals]),
        right=np.stack([exit_.decision == samples.targets for exit_ in signals]),
        labels=samples.targets,
    )


def _scores(policy: ExitPolicy, signals: Sequence[Signals]) -> Float:
    """Return scores [E-1, N], also for one exit."""
    return scores(policy, signals) if len(signals) > 1 else np.empty((0, len(signals[0])), np.float32)
