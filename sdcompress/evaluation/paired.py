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
    """Return the metric with these losses less that with others, with its 95 % interval: (value, low, high).

    Of losses that are 0 or 1 see ``paired_interval``. Of others the interval is the normal one, by the standard
    deviation of the differences. Where these are all equal, the rule of three gives 3 / N on both sides.

    Args:
        loss: [N], N at least 1.
        other: [N], of the same samples.
    """
    gained, samples = np.subtract(other, loss, dtype=np.float64), len(loss)
    if np.isin(gained, (-1, 0, 1)).all():
        return paired_interval(int((gained == 1).sum()), int((gained == -1).sum()), samples)
    value = float(gained.mean())
    half = 3 / samples if gained.min() == gained.max() else _Z95 * float(gained.std()) / math.sqrt(samples)
    return value, value - half, value + half


def paired_interval(gained: int, lost: int, samples: int) -> tuple[float, float, float]:
    """Return (gained - lost) / N with its 95 % interval: (value, low, high).

    Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions based on paired data"
    (Journal of Educational and Behavioral Statistics 37, 2012): the normal interval after one more sample of either
    kind. Without these two it holds the true difference in only 81 % of the cases where about three samples differ;
    with them in 93 % or more. If no sample differs, the rule of three gives 3 / N on both sides.

    Args:
        gained: samples of which only the first of two networks is right.
        lost: samples of which only the other one is.
        samples: N, at least 1.
    """
    value = (gained - lost) / samples
    if gained + lost == 0:
        return value, -3 / samples, 3 / samples
    middle = (gained - lost) / (samples + 2)
    half = _Z95 * math.sqrt(((gained + lost + 2) / (samples + 2) - middle**2) / (samples + 2))
    return value, max(middle - half, -1.0), min(middle + half, 1.0)


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
