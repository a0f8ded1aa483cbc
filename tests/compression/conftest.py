"""The checkpoint of a small network on digits, whose benchmarks take moments."""

from __future__ import annotations

from pathlib import Path

import pytest

import sdcompress

RECIPE = {
    "name": "tiny",
    "data": {"name": "digits", "validation": 0.2, "train_limit": 96},
    "modality": {"image_size": 16},
    "exits": {"count": 2, "head": "linear"},
    "method": "deep_supervision",
    "train": {"epochs": 1, "batch_size": 32, "device": "cpu"},
    "bench": {"warmup_ms": 1, "duration_s": 0.02, "rounds": 5},
}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("train") / "net"
    sdcompress.train(RECIPE, out)
    return out
