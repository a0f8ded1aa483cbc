"""Two evaluations on the same images, compared image by image."""

from __future__ import annotations

import base64
import hashlib

import numpy as np
import numpy.typing as npt

from sdcompress.evaluation.early_exit import paired_difference
from sdcompress.schema.base import Interval
from sdcompress.schema.report import Evaluation

__all__ = ["accuracy_difference", "digest_of_labels", "pack"]

Right = npt.NDArray[np.bool_]


def pack(right: Right) -> str:
    """Which of N images are answered right, bool [N], as ``Evaluation.right`` holds it."""
    return base64.b64encode(np.packbits(right).tobytes()).decode("ascii")


def digest_of_labels(labels: npt.NDArray[np.int64]) -> str:
    """SHA-256 of labels [N] in their order: evaluations with the same one are of the same images."""
    return hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()


def accuracy_difference(mine: Evaluation, theirs: Evaluation) -> Interval | None:
    """Accuracy of one less that of the other with its paired 95 % interval; None where they cannot be paired.

    That is where the images differ, or an evaluation of an earlier version holds no answers image by image.
    """
    if (mine.data, mine.split, mine.samples) != (theirs.data, theirs.split, theirs.samples):
        return None
    if mine.right is None or theirs.right is None or mine.labels_sha256 != theirs.labels_sha256:
        return None
    value, low, high = paired_difference(_unpack(mine.right, mine.samples), _unpack(theirs.right, theirs.samples))
    return Interval(value=value, low=low, high=high)


def _unpack(packed: str, samples: int) -> Right:
    bits = np.frombuffer(base64.b64decode(packed), np.uint8)
    return np.unpackbits(bits, count=samples).astype(np.bool_)
