"""Split calibration samples into tuning samples and certification samples, and fix the order of the latter."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["CalibrationSplit", "calibration_count_for", "draw_split", "seed_of", "tuning_count", "tuning_count_for"]

Rows = npt.NDArray[np.int64]

# a third to a sixteenth was tried (benchmarks/certificates): from some thousand samples on a small share is better, as
# it leaves more to the tests; on some hundred an eighth is too few to make a path of
_TUNING_EVERY = 6


class CalibrationSplit(NamedTuple):
    """Tuning and certification samples, as disjoint rows of N calibration samples.

    Attributes:
        tuning: int64 [M], rows on which temperatures and the path of thresholds are made.
        certify: int64 [N - M], rows that are only tested, in this order.
    """

    tuning: Rows
    certify: Rows


def seed_of(data_fingerprint: str, graphs: str) -> str:
    """Return the SHA-256 of the data's fingerprint and the graphs' digest, both in hexadecimal, joined by a space.

    Nothing else goes in: the same graphs and data always give the same split and order. So nobody can draw splits until
    a test passes.
    """
    return hashlib.sha256(f"{data_fingerprint} {graphs}".encode()).hexdigest()


def draw_split(count: int, seed: str) -> CalibrationSplit:
    """Split the rows 0..count-1 at random, a sixth for the tuning.

    The split is not stratified, because the tests are for samples drawn independently. The sort keys are raw output of
    PCG64, which numpy keeps the same over versions (NEP 19).

    Args:
        count: N.
        seed: from ``seed_of``.
    """
    keys = np.random.PCG64(np.random.SeedSequence(int(seed, 16))).random_raw(count)
    order = np.argsort(keys, kind="stable").astype(np.int64)
    first = tuning_count(count)
    return CalibrationSplit(order[:first], order[first:])


def tuning_count(count: int) -> int:
    """Return the number of tuning samples among ``count`` calibration samples."""
    return count // _TUNING_EVERY


def calibration_count_for(certify: int) -> int:
    """Return the smallest number of calibration samples of which at least ``certify`` are certification samples."""
    near = certify * _TUNING_EVERY // (_TUNING_EVERY - 1)
    return next(count for count in range(near - 1, near + 2) if count - count // _TUNING_EVERY >= certify)


def tuning_count_for(certify: int) -> int:
    """Return the number of tuning samples in proportion to ``certify`` certification samples."""
    return -(-certify // (_TUNING_EVERY - 1))
