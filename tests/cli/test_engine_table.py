"""How inspect shows engines."""

from __future__ import annotations

from typing import Any

import pytest

from sdcompress.cli.build_engines import show_engines
from sdcompress.schema.change import ExitChange, ParityRecord, PolicyChange
from sdcompress.schema.engines import BatchProfile, Engines, Plan, SpeedComparison, Validation
from sdcompress.schema.graphs import FileEntry

FILE = {"sha256": "0" * 64, "bytes": 3 * 2**20}


def engines(**fields: Any) -> Engines:
    plan = Plan(file="engines/x/segment-0.plan", device_memory_bytes=2**20, layers={"fp16": 3, "fp32": 1}, **FILE)
    return Engines(
        gpu="NVIDIA L4",
        compute_capability="8.9",
        tensorrt="10.9.0.34",
        driver="",
        plans=(plan,),
        profiles=(BatchProfile(min=1, opt=1, max=1), BatchProfile(min=2, opt=4, max=8)),
        tf32=True,
        workspace_bytes=1,
        builder_optimization_level=3,
        version_compatible=True,
        hardware_compatibility="ampere_plus",
        log=FileEntry(file="engines/x/build.log", **FILE),
        parity=(ParityRecord(exit="final", samples=1, batches=(1,), max_abs_diff=0.5, tolerance=1.0, flips=0),),
        **fields,
    )


def test_what_they_are_for_and_of_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    show_engines(engines(), "fp16")
    said = capsys.readouterr().out
    for words in ("TensorRT 10.9.0.34 for NVIDIA L4 (8.9)", "segment-0.plan", "3.00", "1.00", "3 fp16, 1 fp32"):
        assert words in said
    assert "batches 1:1:1, 2:4:8; TF32 on; level 3; also for other GPUs: ampere_plus and later versions; out" in said
    assert "within 50% of the tolerance" in said
    assert "not compared on validation samples" in said


def test_what_they_cost_on_validation_images_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    change = ExitChange(
        name="exit1", metric_before=0.75, metric_after=0.74, decision_changes=12, changed_share=0.03, max_abs_diff=0.25
    )
    policy = PolicyChange(
        metric_before=0.9,
        metric_after=0.89,
        exit_changes=7,
        decision_changes=3,
        changed_share=0.0075,
        shares_before=(0.5, 0.5),
        shares_after=(0.4, 0.6),
    )
    show_engines(engines(validation=Validation(samples=400, max_drop=0.02, exits=(change,), policy=policy)), "fp16")
    said = capsys.readouterr().out
    assert "on 400 validation samples (at most 2.00% may be lost)" in said
    for cell in ("exit1", "75.00%", "74.00%", "12 (3.00%)", "0.25"):
        assert cell in said
    assert "by the policy: 90.00% by the graphs, 89.00% by the engines; 7 samples take another exit" in said
    assert "other decisions: 3 (0.75%)" in said
    assert "not compared" not in said


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (
            "slower",
            "int8 is slower here than fp16 (aaaaaaaaaaaa): 1.100 ms against 1.000 ms at batch 8, 0.91x [0.90, 0.92]",
        ),
        ("faster", "int8 is faster here than fp16"),
        ("no difference", "int8 is as fast as fp16"),
    ],
)
def test_which_precision_is_slower_here_is_said(capsys: pytest.CaptureFixture[str], verdict: str, words: str) -> None:
    time = SpeedComparison(
        digest="a" * 64, precision="fp16", batch=8, ms=1.1, other_ms=1.0,
        speedup=0.91, low=0.9, high=0.92, verdict=verdict,
    )  # fmt: skip
    show_engines(engines(speed_comparisons=(time,)), "int8")
    assert words in capsys.readouterr().out
