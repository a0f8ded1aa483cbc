"""Leave when a tiny fitted gate says that going on would not help: logistic, on four signals of the exit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from sdcompress.policies._base import ExitPolicy, Float, Signals

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Learned"]

_RIDGE = 1.0
_TINY = 1e-6
_MOST = 80.0  # whose exponential float32 still holds
_STEPS = 50
_ENOUGH = 1e-6


@dataclass(frozen=True)
class Learned(ExitPolicy):
    """How little leaving here is expected to lose against the last exit, which is not the probability of being right.

    What is fitted is 1 - max(loss here - loss of the last exit, 0). Where losses are 0 or 1, that is "not (the last
    exit is right and this one is wrong)": samples that no exit gets right may leave as soon as those that this exit
    gets right. A gate for correctness keeps them to the end. Signals: the logit of the
    largest probability, the entropy, the lead over the second, and whether the exit before says the same. The inputs
    are those of the learned gates of JEI-DNN (Regol et al., arXiv:2310.09163); the target is ours.

    Attributes:
        weights: for each exit but the last, its constant and one weight for each signal.
    """

    weights: Sequence[Sequence[float]]
    needs: ClassVar[tuple[str, ...]] = ("max_prob", "second_prob", "entropy")
    history: ClassVar[bool] = True

    @classmethod
    def fit(cls, signals: Sequence[Signals], loss: Float) -> Self:
        """Logistic regression for each exit, ridge on the standardised signals."""
        kept = 1 - np.maximum(np.subtract(loss, loss[-1], dtype=np.float64), 0)  # [E, N]
        weights = []
        for exit_ in range(len(signals) - 1):
            inputs = np.stack([np.asarray(column, np.float64) for column in _inputs(signals[: exit_ + 1])], axis=1)
            weights.append(_logistic(inputs, kept[exit_]))
        return cls(weights)

    def score(self, exit_: int, signals: Sequence[Signals]) -> Float:
        """The gate's probability."""
        against, *weights = (np.float32(-weight) for weight in self.weights[exit_])
        for weight, column in zip(weights, _inputs(signals), strict=True):
            against = np.add(np.multiply(column, weight), against)
        doubt = np.exp(np.minimum(against, np.float32(_MOST)))
        sure: Float = np.divide(np.float32(1), np.add(doubt, np.float32(1)))
        return sure


def _inputs(signals: Sequence[Signals]) -> list[npt.NDArray[Any]]:
    """The gate's inputs, each [B]; the exit before counts as one that says the same where there is none."""
    now = signals[-1]
    before = signals[-2] if len(signals) > 1 else now
    doubt = np.maximum(np.subtract(np.float32(1), now["max_prob"]), np.float32(_TINY))
    logit = np.log(np.divide(np.maximum(now["max_prob"], np.float32(_TINY)), doubt))
    return [
        logit,
        now["entropy"],
        np.subtract(now["max_prob"], now["second_prob"]),
        now.agrees(before),
    ]


def _logistic(inputs: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> list[float]:
    """Constant and weights of E[target] = sigmoid(constant + inputs @ weights), by Newton's method."""
    mean, spread = inputs.mean(axis=0), inputs.std(axis=0) + _TINY
    design = np.column_stack([np.ones(len(inputs)), (inputs - mean) / spread])
    ridge = np.full(design.shape[1], _RIDGE)
    ridge[0] = _TINY  # the constant is free, but for targets that are all alike
    weights = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        probability = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        slope = design.T @ (probability - target) + ridge * weights
        curvature = (design * (probability * (1 - probability))[:, None]).T @ design + np.diag(ridge)
        step = np.linalg.solve(curvature, slope)
        weights -= np.clip(step, -2, 2)
        if np.abs(step).max() < _ENOUGH:
            break
    raw = weights[1:] / spread
    return [float(weights[0] - raw @ mean), *(float(weight) for weight in raw)]
