"""Exit when a fitted logistic gate on four signals predicts that later exits would not lose less."""

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
_MAX_EXPONENT = 80.0  # exp of it is finite in float32
_MAX_STEPS = 50
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Learned(ExitPolicy):
    """Score a sample by the expected 1 - max(loss at this exit - loss at the last exit, 0), which a logistic gate fits.

    Where losses are 0 or 1, this is the probability of "not (the last exit is correct and this one is wrong)". So
    samples that no exit decides correctly may exit early too, where a gate for correctness runs them to the end.
    Inputs of the gate: the logit of the largest probability, the entropy, the difference from the second largest
    probability, and whether the exit before decides the same. The inputs are those of the learned gates of JEI-DNN
    (Regol et al., arXiv:2310.09163); the target is ours.

    Attributes:
        weights: for each exit but the last, its constant and one weight for each input.
    """

    weights: Sequence[Sequence[float]]
    needs: ClassVar[tuple[str, ...]] = ("max_prob", "second_prob", "entropy")
    history: ClassVar[bool] = True

    @classmethod
    def fit(cls, signals: Sequence[Signals], loss: Float) -> Self:
        """Return the policy with a logistic regression for each exit, ridge on the standardised inputs."""
        target = 1 - np.maximum(np.subtract(loss, loss[-1], dtype=np.float64), 0)  # [E, N]
        weights = []
        for k in range(len(signals) - 1):
            inputs = np.stack([np.asarray(column, np.float64) for column in _inputs(signals[: k + 1])], axis=1)
            weights.append(_logistic(inputs, target[k]))
        return cls(weights)

    def score(self, exit_index: int, signals: Sequence[Signals]) -> Float:
        """Return the probability of the gate."""
        negative_logit, *weights = (np.float32(-weight) for weight in self.weights[exit_index])
        for weight, column in zip(weights, _inputs(signals), strict=True):
            negative_logit = np.add(np.multiply(column, weight), negative_logit)
        odds_against = np.exp(np.minimum(negative_logit, np.float32(_MAX_EXPONENT)))
        score: Float = np.divide(np.float32(1), np.add(odds_against, np.float32(1)))
        return score


def _inputs(signals: Sequence[Signals]) -> list[npt.NDArray[Any]]:
    """Return the inputs of the gate, [B] each; at the first exit the agreement with the exit before is 1."""
    current = signals[-1]
    before = signals[-2] if len(signals) > 1 else current
    complement = np.maximum(np.subtract(np.float32(1), current["max_prob"]), np.float32(_TINY))
    logit = np.log(np.divide(np.maximum(current["max_prob"], np.float32(_TINY)), complement))
    margin = np.subtract(current["max_prob"], current["second_prob"])
    return [logit, current["entropy"], margin, current.agrees(before)]


def _logistic(inputs: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> list[float]:
    """Return constant and weights of E[target] = sigmoid(constant + inputs @ weights), by Newton's method."""
    mean, spread = inputs.mean(axis=0), inputs.std(axis=0) + _TINY
    design = np.column_stack([np.ones(len(inputs)), (inputs - mean) / spread])
    ridge = np.full(design.shape[1], _RIDGE)
    ridge[0] = _TINY  # not 0: if all targets are equal, the constant has no finite optimum
    weights = np.zeros(design.shape[1])
    for _ in range(_MAX_STEPS):
        probability = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        slope = design.T @ (probability - target) + ridge * weights
        curvature = (design * (probability * (1 - probability))[:, None]).T @ design + np.diag(ridge)
        step = np.linalg.solve(curvature, slope)
        weights -= np.clip(step, -2, 2)
        if np.abs(step).max() < _TOLERANCE:
            break
    raw = weights[1:] / spread
    return [float(weights[0] - raw @ mean), *(float(weight) for weight in raw)]
