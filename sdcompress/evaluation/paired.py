"""Compare losses on the same samples: paired differences with their intervals, also of two stored evaluations."""

from __future__ import annotations

import base64
import hashlib
import math

import numpy as np
import numpy.typing as npt

from sdcompress.schema.base import Interval
from sdcompress.schema.report import Evaluation

__all__ = ["digest_of_targets", "metric_difference", "pack", "paired_difference", "paired_interval"]

Losses = npt.NDArray[np.floating]
Float = npt.NDArray[np.float32]

_Z95 = 1.959964


def paired_difference(loss: Losses, other: Losses) -> tuple[float, float, float]:
    """Return the metric with these losses less that with others, with its 95 % interval; see ``paired_interval``.

    Args:
        loss: [N].
        other: [N], of the same samples.
    """
    gained = np.subtract(other, loss, dtype=np.float64)
    return paired_interval(float(gained.sum()), float((gained**2).sum()), len(gained))


def paired_interval(total: float, squares: float, samples: int) -> tuple[float, float, float]:
    """Return the mean of N differences in [-1, 1] with its normal 95 % interval: (value, low, high).

    If all differences are equal, their variance is 0, and the rule of three gives the interval: 3 / N on both sides.

    Args:
        total: sum of the differences.
        squares: sum of their squares.
        samples: N, at least 1.
    """
    value = total / samples
    variance = squares / samples - value**2
    half = _Z95 * math.sqrt(max(variance, 0.0) / samples) or 3 / samples
    return value, value - half, value + half


def pack(loss: Float) -> str:
    """Return the losses of N samples, float32 [N], as ``Evaluation.losses`` holds them."""
    binary = bool(np.isin(loss, (0, 1)).all())
    content = np.packbits(loss.astype(np.bool_)) if binary else loss.astype("<f4")
    return base64.b64encode(content.tobytes()).decode("ascii")


def digest_of_targets(targets: npt.NDArray[np.generic]) -> str:
    """Return the SHA-256 of targets [N, ...] in their order; equal for evaluations of the same samples."""
    return hashlib.sha256(targets.astype(targets.dtype.newbyteorder("<")).tobytes()).hexdigest()


def metric_difference(evaluation: Evaluation, reference: Evaluation) -> Interval | None:
    """Return the metric of one evaluation less that of another, with its paired 95 % interval.

    None: they cannot be paired, because the samples differ or losses are missing.
    """
    if (evaluation.data, evaluation.split, evaluation.samples) != (reference.data, reference.split, reference.samples):
        return None
    if evaluation.losses is None or reference.losses is None or evaluation.targets_sha256 != reference.targets_sha256:
        return None
    value, low, high = paired_difference(
        _unpack(evaluation.losses, evaluation.samples), _unpack(reference.losses, reference.samples)
    )
    return Interval(value=value, low=low, high=high)


def _unpack(packed: str, samples: int) -> Float:
    content = base64.b64decode(packed)
    if len(content) == 4 * samples:
        return np.frombuffer(content, "<f4")
    return np.unpackbits(np.frombuffer(content, np.uint8), count=samples).astype(np.float32)
