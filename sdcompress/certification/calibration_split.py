"""Split calibration samples into those that tune thresholds and those that certify them, in their order."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Parts", "count_of_tuning", "draw_parts", "in_tuning", "samples_for", "seed_of"]

Positions = npt.NDArray[np.int64]

# a third to a sixteenth was tried (benchmarks/certificates): from some thousand samples on a small share is better, as
# it leaves more to the tests; on some hundred an eighth is too few to make a path of
_TUNING_EVERY = 6


class Parts(NamedTuple):
    """Two disjoint parts of N calibration samples, by their positions.

    Attributes:
        tuning: int64 [M]: temperatures and the path of thresholds are made on these.
        certify: int64 [N - M]: these are only tested, in this order.
    """

    tuning: Positions
    certify: Positions


def seed_of(data_fingerprint: str, graphs: str) -> str:
    """SHA-256 of the data's fingerprint and the graphs' digest, both in hexadecimal, joined by a space.

    Nothing else goes in: calibrating the same graphs on the same data again draws the same parts in the same order, so
    that no one can draw until the test is passed.
    """
    return hashlib.sha256(f"{data_fingerprint} {graphs}".encode()).hexdigest()


def draw_parts(count: int, seed: str) -> Parts:
    """Part the positions 0..count-1 at random, a sixth for the tuning.

    Not stratified: the tests are for samples drawn independently. The keys are raw output of PCG64, which
    numpy keeps the same over versions (NEP 19).

    Args:
        count: N.
        seed: from ``seed_of``.
    """
    keys = np.random.PCG64(np.random.SeedSequence(int(seed, 16))).random_raw(count)
    order = np.argsort(keys, kind="stable").astype(np.int64)
    first = count_of_tuning(count)
    return Parts(order[:first], order[first:])


def count_of_tuning(count: int) -> int:
    """Return how many of ``count`` samples are drawn for the tuning."""
    return count // _TUNING_EVERY


def samples_for(certify: int) -> int:
    """Return the smallest number of calibration samples whose second part has at least ``certify``."""
    near = certify * _TUNING_EVERY // (_TUNING_EVERY - 1)
    return next(count for count in range(near - 1, near + 2) if count - count // _TUNING_EVERY >= certify)


def in_tuning(certify: int) -> int:
    """Return the tuning samples in proportion to ``certify`` certification samples."""
    return -(-certify // (_TUNING_EVERY - 1))
