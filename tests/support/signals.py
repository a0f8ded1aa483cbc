"""Signals of logits, as a classification gives them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sdcompress.tasks import Signals
from sdcompress.tasks.classification import Classification

TASK = Classification(("a", "b"))


def signals(max_prob: Any, second_prob: Any, entropy: Any, decision: Any) -> Signals:
    """Of given columns."""
    return Signals({"max_prob": max_prob, "second_prob": second_prob, "entropy": entropy}, decision)


def signals_of(logits: npt.NDArray[np.float32], temperature: float = 1.0) -> Signals:
    """Of float32 [B, K], whatever K is."""
    return TASK.signals(logits, temperature)
