"""When a sample leaves. The very functions that run are the ones that thresholds are calibrated with."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sdcompress.runtime.engine import Float
from sdcompress.schema.manifest import Exit, Policy

__all__ = ["Gate", "gates", "max_probability"]

Gate = Callable[[Float], npt.NDArray[np.bool_]]


def gates(policy: Policy, exits: tuple[Exit, ...]) -> tuple[Gate, ...]:
    """For each exit but the last: which rows of its logits [B, K] leave, bool [B].

    A row leaves when its confidence is at least the threshold, both float32. NaN is not at least anything.

    Args:
        policy: the thresholds.
        exits: hold the temperatures.
    """
    return tuple(
        _max_probability_gate(threshold, exit_.temperature)
        for threshold, exit_ in zip(policy.thresholds, exits[:-1], strict=True)
    )


def max_probability(logits: Float, temperature: float) -> Float:
    """The largest probability of softmax(logits / temperature), float32 [B], as 1 / sum(exp((z - max z) / T)).

    The sum holds exp(0) = 1, so that no rounding takes the result above 1.

    Args:
        logits: float32 [B, K].
        temperature: T > 0.
    """
    return np.reciprocal(_inverse_confidence(logits, np.float32(1 / temperature)))


def _max_probability_gate(threshold: float, temperature: float) -> Gate:
    # rounded to float32, a threshold just above 1 would become 1 and fire
    least = np.float32(threshold if threshold <= 1 else math.inf)
    scale = np.float32(1 / temperature)

    def leaves(logits: Float) -> npt.NDArray[np.bool_]:
        found: npt.NDArray[np.bool_] = np.reciprocal(_inverse_confidence(logits, scale)) >= least
        return found

    return leaves


def _inverse_confidence(logits: Float, scale: np.float32) -> Float:
    # ufuncs, in place: at batch 1 numpy's methods and temporaries cost more than the arithmetic
    shifted = logits - np.maximum.reduce(logits, axis=1, keepdims=True)
    shifted *= scale
    np.exp(shifted, out=shifted)
    total: Float = np.add.reduce(shifted, axis=1)
    return total
