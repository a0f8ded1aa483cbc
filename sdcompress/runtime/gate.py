"""How sure an exit is. Calibration and cascade use this one function, so thresholds mean the same in both."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["confidence"]


def confidence(logits: npt.NDArray[np.float32], temperature: float) -> npt.NDArray[np.float32]:
    """The largest probability of softmax(logits / temperature), as 1 / sum(exp((z - max z) / T)).

    Args:
        logits: float32 [..., K].
        temperature: T > 0.

    Returns:
        float32 [...]; NaN where a logit is NaN, which no threshold lets leave.
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    if temperature != 1.0:
        shifted *= np.float32(1.0 / temperature)
    np.exp(shifted, out=shifted)
    sure: npt.NDArray[np.float32] = np.float32(1.0) / shifted.sum(axis=-1)
    return sure
