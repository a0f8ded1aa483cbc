"""How inspect shows engines."""

from __future__ import annotations

import pytest

from sdcompress.cli.engine_table import show_engines
from sdcompress.schema.engines import BatchProfile, Engines, Plan
from sdcompress.schema.graphs import FileEntry
from sdcompress.schema.parity import ParityRecord

FILE = {"sha256": "0" * 64, "bytes": 3 * 2**20}


def test_what_they_are_for_and_of_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(file="engines/x/segment-0.plan", device_memory_bytes=2**20, layers={"fp16": 3, "fp32": 1}, **FILE)
    show_engines(
        Engines(
            gpu="NVIDIA L4",
            compute_capability="8.9",
            tensorrt="10.9.0.34",
            driver="",
            plans=(plan,),
            profiles=(BatchProfile(min=1, opt=1, max=1), BatchProfile(min=2, opt=4, max=8)),
            tf32=True,
            workspace_bytes=1,
            level=3,
            version_compatible=True,
            hardware_compatibility="ampere_plus",
            log=FileEntry(file="engines/x/build.log", **FILE),
            parity=(ParityRecord(exit="final", samples=1, batches=(1,), max_abs=0.5, allowed=1.0, flips=0),),
        )
    )
    said = capsys.readouterr().out
    for words in ("TensorRT 10.9.0.34 for NVIDIA L4 (8.9)", "segment-0.plan", "3.00", "1.00", "3 fp16, 1 fp32"):
        assert words in said
    assert "batches 1:1:1, 2:4:8; TF32 on; level 3; also for other GPUs: ampere_plus and later versions; logits" in said
    assert "within 50% of what is allowed" in said
