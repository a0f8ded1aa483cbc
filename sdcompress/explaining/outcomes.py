"""Run a split through every exit and keep a few numbers of each sample, never all logits."""

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
    """What E exits say of N samples.

    Attributes:
        scores: float32 [E-1, N], of all exits but the last: a sample leaves where it is at least the threshold.
        confidences: float32 [E, N], the largest probability at the exit's temperature.
        right: bool [E, N], whether the exit's answer is the label.
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
    """Run N samples through all exits, batch by batch, at the artifact's temperatures.

    Args:
        engine: what is run.
        samples: N images and labels.
        policy: gives the scores.
        progress: called with (images done, all images).

    Raises:
        DataError: if the samples are none, or not of this network's classes and size.
        VerificationError: if a logit is not finite.
    """
    signals = exit_signals(engine, samples, progress=progress)
    return Outcomes(
        scores=_scores(policy, signals),
        confidences=np.stack([exit_["max_prob"] for exit_ in signals]),
        right=np.stack([exit_.decision == samples.labels for exit_ in signals]),
        labels=samples.labels,
    )


def _scores(policy: ExitPolicy, signals: Sequence[Signals]) -> Float:
    """[E-1, N], also of one exit, where nothing is decided."""
    return scores(policy, signals) if len(signals) > 1 else np.empty((0, len(signals[0])), np.float32)
