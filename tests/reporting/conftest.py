"""Two artifacts with known figures, and what was measured of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from meaning import image_modality, meaning

from sdcompress.artifact.golden import Golden
from sdcompress.artifact.write import entry, seal
from sdcompress.benchmarking.stats import latency
from sdcompress.modalities._preprocess_settings import Preprocess
from sdcompress.schema.manifest import Exit as ManifestExit
from sdcompress.schema.manifest import Manifest, ParityRecord, Policy, Provenance, Segment, Tensor
from sdcompress.schema.report import (
    BenchRecord,
    BenchReport,
    Comparison,
    Evaluation,
    ExitEvaluation,
    ExitTiming,
    Machine,
    PolicyEvaluation,
)

HASH = "ab" * 32
MACS = (10_000_000, 30_000_000)
PERCENTS = (50.0, 99.0)


def write_artifact(folder: Path, *, cascade: bool) -> Manifest:
    """An intact artifact folder whose graphs are never run; a cascade of two exits, or the last exit alone."""
    folder.mkdir()
    images = np.zeros((2, 4, 4, 1), dtype=np.uint8)
    Golden(images, np.zeros(2, dtype=np.int64), np.zeros((2 if cascade else 1, 2, 3), dtype=np.float32)).save(
        folder / "golden.npz", image_modality((1, 4, 4))
    )
    (folder / "README.md").write_text("card", encoding="utf-8")
    names = ("exit1", "final") if cascade else ("final",)
    segments = []
    for index, name in enumerate(names):
        (folder / f"segment-{index}.onnx").write_bytes(b"x" * 1000)
        segments.append(
            Segment(
                **entry(folder, f"segment-{index}.onnx").model_dump(),
                inputs=(Tensor(name="input", dtype="float32", shape=("batch", 1, 4, 4)),),
                outputs=(Tensor(name=f"{name}_outputs", dtype="float32", shape=("batch", 3)),),
                macs=MACS[index] if cascade else 40_000_000,
                parameters=500,
            )
        )
    policy = Policy(
        thresholds=(0.9,), max_drop=0.01, samples=100, metric=0.8, reference_metric=0.8, shares=(0.5, 0.5),
        stage_ms=(1.0, 2.0),
    )  # fmt: skip
    return seal(
        folder,
        layout="cascade" if cascade else "single",
        **meaning(("a", "b", "c"), Preprocess(channels=1, mean=(0.0,), std=(1.0,)), (1, 4, 4)),
        segments=segments,
        exits=[ManifestExit(name=name, segment=i, outputs=f"{name}_outputs") for i, name in enumerate(names)],
        policy=policy if cascade else None,
        golden=entry(folder, "golden.npz"),
        card=entry(folder, "README.md"),
        parity=[
            ParityRecord(exit=name, samples=256, batches=(1,), max_abs_diff=0.0, tolerance=1e-4, flips=0)
            for name in names
        ],
        provenance=Provenance(
            created="2026-01-01T00:00:00Z", recipe={}, recipe_sha256=HASH, weights_sha256=HASH, data_fingerprint=HASH
        ),
    )  # fmt: skip


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    write_artifact(tmp_path / "whole", cascade=False)
    write_artifact(tmp_path / "chain", cascade=True)
    return {"whole": tmp_path / "whole", "chain": tmp_path / "chain"}


def evaluation(
    name: str, *, split: Any = "test", exits: dict[str, float], policy: PolicyEvaluation | None = None
) -> Evaluation:
    scores = tuple(
        ExitEvaluation(name=exit_, metric=a, further={"nll": 0.5, "ece": 0.01}) for exit_, a in exits.items()
    )
    return Evaluation(
        kind="artifact", name=name, source=name, digest=None, data="digits", split=split, samples=10_000, exits=scores,
        policy=policy, metric_name="accuracy", binary_loss=True,
    )  # fmt: skip


def bench_record(name: str, times: np.ndarray, exits: tuple[ExitTiming, ...] = (), **changed: Any) -> BenchRecord:
    fields: dict[str, Any] = {
        "name": name, "source": name, "digest": None, "layout": "single", "scenario": "single-stream", "batch": 1,
        "latency": latency(times, PERCENTS), "preparation": latency(np.full(20, 0.5), PERCENTS),
        "end_to_end_ms": times.mean() + 0.5, "samples_per_second": 1000 / times.mean(), "load_ms": 20.0,
        "first_ms": 5.0,
        "exits": exits, "stable": True, "raw_ms": tuple(times.tolist()),
    }  # fmt: skip
    return BenchRecord(**fields | changed)


def comparison(name: str, mean: float, verdict: Any = "faster", p50: float | None = None) -> Comparison:
    median = p50 or mean
    return Comparison(
        name=name, reference="whole", scenario="single-stream", batch=1, speedup_p50=median, low=median - 0.05,
        high=median + 0.05, speedup_mean=mean, mean_low=mean - 0.04, mean_high=mean + 0.04, speedup_end_to_end=2.0,
        end_to_end_low=1.97, end_to_end_high=2.03, rounds=10, verdict=verdict,
    )  # fmt: skip


@pytest.fixture
def evaluations() -> list[Evaluation]:
    left = PolicyEvaluation(metric=0.91, shares=(0.75, 0.25), metric_by_exit=(0.96, 0.76))
    return [
        evaluation("whole", exits={"final": 0.92}),
        evaluation("chain", exits={"exit1": 0.85, "final": 0.92, "ensemble": 0.925}, policy=left),
        evaluation("chain", split="validation", exits={"exit1": 0.86, "final": 0.93}, policy=left),
    ]


@pytest.fixture
def benches() -> list[BenchReport]:
    rng = np.random.default_rng(0)
    exits = (
        ExitTiming(name="exit1", share=0.75, p50_ms=1.0, forced_p50_ms=1.01, forced_mean_ms=1.05),
        ExitTiming(name="final", share=0.25, p50_ms=4.0, forced_p50_ms=4.02, forced_mean_ms=4.2),
    )
    whole_ms, chain = 4.0 + 0.01 * rng.random(700), np.where(np.arange(100) % 4 == 0, 4.0, 1.0)
    machine = Machine(
        cpu="Test <CPU>", cores=2, isa=("avx2",), memory_gib=8.0, gpu=None, os="Linux", python="3.10", busy_cores=0.1,
        versions={"numpy": "2.0"},
    )  # fmt: skip
    return [
        BenchReport(
            created="2026-01-02T00:00:00+00:00", command="sdcompress bench", machine=machine, threads=1, device="cpu",
            input="digits, test split: 100 different images", warmup_ms=200.0, duration_s=3.0,
            records=(bench_record("whole", whole_ms), bench_record("chain", chain, exits, mixture_residual=0.01)),
            comparisons=(comparison("chain", 2.29, p50=4.0),),
        )
    ]  # fmt: skip
