"""Compare two evaluations on the same samples, sample by sample."""

from __future__ import annotations

import base64
import hashlib

import numpy as np
import numpy.typing as npt

from sdcompress.evaluation.early_exit import paired_difference
from sdcompress.schema.base import Interval
from sdcompress.schema.report import Evaluation

__all__ = ["digest_of_targets", "pack", "score_difference"]

Float = npt.NDArray[np.float32]


def pack(loss: Float) -> str:
    """Return the losses of N samples, float32 [N], as ``Evaluation.losses`` holds them."""
    binary = bool(np.isin(loss, (0, 1)).all())
    content = np.packbits(loss.astype(np.bool_)) if binary else loss.astype("<f4")
    return base64.b64encode(content.tobytes()).decode("ascii")


def digest_of_targets(targets: npt.NDArray[np.generic]) -> str:
    """SHA-256 of targets [N, ...] in their order: evaluations with the same one are of the same samples."""
    return hashlib.sha256(targets.astype(targets.dtype.newbyteorder("<")).tobytes()).hexdigest()


def score_difference(mine: Evaluation, reference: Evaluation) -> Interval | None:
    """Return the metric of one less that of the other with its paired 95 % interval; None where they cannot be paired.

    That is where the samples differ, or an evaluation holds no losses.
    """
    if (mine.data, mine.split, mine.samples) != (reference.data, reference.split, reference.samples):
        return None
    if mine.losses is None or reference.losses is None or mine.targets_sha256 != reference.targets_sha256:
        return None
    value, low, high = paired_difference(
        _unpack(mine.losses, mine.samples), _unpack(reference.losses, reference.samples)
    )
    return Interval(value=value, low=low, high=high)


def _unpack(packed: str, samples: int) -> Float:
    content = base64.b64decode(packed)
    if len(content) == 4 * samples:
        return np.frombuffer(content, "<f4")
    return np.unpackbits(np.frombuffer(content, np.uint8), count=samples).astype(np.float32)
