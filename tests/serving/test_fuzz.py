"""Bytes that nobody trusts: right ones, the same cut and bent, and those with which a search found a failure."""

from __future__ import annotations

import base64
import random

import pytest
from fuzz_targets import TARGETS, nearly_right, seeds

# target -> what benchmarks/fuzz/fuzz.py found, and what was wrong
FOUND: dict[str, tuple[bytes, ...]] = {
    # a finite number that is infinite as float32
    "text": (b'\2{"age": 1e43, "job": "g"}',),
    # a TIFF whose strip begins at a place that is a float: Pillow's TypeError was an internal error
    "image": (
        base64.b64decode(
            "SUkqAAgAAAAIAAABBAABAAAACAAAAAEBBAABAAAACAAAAAMBAwABAAAAAQAAAAYBAwABAAAAAQAAABEBDAABAAAAbg"
            "AAABYBBAABAAAACAAAABcBBADl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl"
            "5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eUBAAAACAAAABwBAwABAAAAAQ"
            "AAAAAAAABaldaqs1QylQ=="
        ),
    ),
}
VARIANTS = 20


@pytest.mark.parametrize("target", TARGETS)
def test_bytes_are_taken_or_refused(target: str) -> None:
    run, rng = TARGETS[target], random.Random(0)
    for found in FOUND.get(target, ()):
        run(found)
    for seed in seeds(target):
        run(seed)
        for _ in range(VARIANTS):
            at, changed = rng.randrange(len(seed)), bytearray(seed)
            changed[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
            run(bytes(changed))
            run(seed[:at])


def test_requests_that_are_nearly_right_are_taken_or_refused() -> None:
    nearly_right()
