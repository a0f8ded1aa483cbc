"""Where a cascade of a network below a millisecond spends its time when no sample exits early.

Everything runs to the end, one sample, one thread. What is compared is processor time, in turns. The cascade and the
whole network come from ``benchmarks/runtimes/half.py FOLDER --size 16 --fp32``.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import process_time_ns
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from record import Record, against

from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.benchmarking.stats import ratio_of_medians
from sdcompress.modalities import Inputs
from sdcompress.onnx_graph.merge import merge
from sdcompress.options import EngineOptions
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.headless import with_outputs
from sdcompress.runtime.open import open_cascade
from sdcompress.schema.manifest import Policy

NEVER, HARD = 2.0, 1.0  # no score reaches the first; the second is asked for at every exit, and hardly ever reached


def policy(*thresholds: float) -> Policy:
    exits = len(thresholds) + 1
    shares = (0.0,) * (exits - 1) + (1.0,)
    return Policy(
        name="max_prob", thresholds=thresholds, max_drop=0.0, samples=1, metric=1.0, reference_metric=1.0,
        shares=shares, stage_ms=(1.0,) * exits,
    )  # fmt: skip


def session(model: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def bare(artifact: Artifact, *, heads: bool) -> Callable[[Inputs], Any]:
    """The segments by bare sessions, with or without the heads before the last."""
    parts = []
    for index, segment in enumerate(artifact.manifest.segments):
        names = {tensor.name for tensor in segment.outputs}
        live = {tensor.name for tensor in artifact.manifest.live_tensors(index)} & names or names
        kept = [tensor.name for tensor in segment.outputs if heads or tensor.name in live]
        model = session(with_outputs(artifact.file(segment).read_bytes(), kept))
        parts.append((model, [tensor.name for tensor in segment.inputs], kept))

    def call(inputs: Inputs) -> None:
        tensors = dict(inputs.arrays)
        for model, taken, given in parts:
            tensors.update(zip(given, model.run(given, {name: tensors[name] for name in taken}), strict=True))

    return call


def one_graph(artifact: Artifact, thresholds: list[float | None]) -> Callable[[Inputs], Any]:
    chosen = policy(*(NEVER if threshold is None else threshold for threshold in thresholds))
    manifest = artifact.manifest.model_copy(update={"policy": chosen})
    segments = [onnx.load(artifact.file(segment)) for segment in manifest.segments]
    model = session(merge(manifest, segments, thresholds, batch_of_one=True).SerializeToString())
    return lambda inputs: model.run(None, inputs.arrays)


def calls_of(whole: Artifact, cascade: Artifact) -> dict[str, Callable[[Inputs], Any]]:
    engines = [
        open_cascade(artifact, EngineOptions(threads=1, allow_uncertified=True)) for artifact in (whole, cascade)
    ]
    single, engine = engines
    before_last = len(cascade.manifest.exits) - 1
    middle = [HARD if k == before_last // 2 else NEVER for k in range(before_last)]

    def by(*thresholds: float) -> CascadeEngine:
        return engine.with_policy(policy(*thresholds))

    return {
        "whole, bare session": bare(whole, heads=True),
        "whole, engine": single,
        "segments, bare sessions": bare(cascade, heads=True),
        "segments without heads, bare sessions": bare(cascade, heads=False),
        "cascade, every head computed, nothing decided": partial(engine.forced, exit=-1),
        "cascade, decides at every exit": by(*[HARD] * before_last),
        "cascade, decides at one exit": by(*middle),
        "cascade, no exit is ever taken": by(*[NEVER] * before_last),
        "one graph (if), decides at one exit": one_graph(cascade, [None if t == NEVER else t for t in middle]),
        "one graph (if), decides at every exit": one_graph(cascade, [HARD] * before_last),
    }


def turn(call: Callable[[Inputs], Any], inputs: list[Inputs], count: int) -> np.ndarray:
    call(inputs[-1])
    took = []
    for at in range(count):
        start = process_time_ns()
        call(inputs[at % len(inputs)])
        took.append(process_time_ns() - start)
    return np.asarray(took, np.float64) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of half.py")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=40, help="of one turn")
    given = parser.parse_args()
    record = Record()
    whole, cascade = open_artifact(given.folder / "whole"), open_artifact(given.folder / "cascade")
    inputs = whole.modality.collate(whole.golden().examples)
    rows = [inputs[k : k + 1] for k in range(8)]
    calls = calls_of(whole, cascade)
    times: dict[str, list[np.ndarray]] = {name: [] for name in calls}
    gc.disable()
    for call in calls.values():
        turn(call, rows, given.calls)
    for at in range(given.rounds):
        for name in list(calls) if at % 2 == 0 else list(calls)[::-1]:
            times[name].append(turn(calls[name], rows, given.calls))
    base = times["whole, engine"]
    figures = {
        name: {
            "median_ms": round(float(np.median(np.concatenate(took))), 4),
            "fastest_ms": round(float(np.concatenate(took).min()), 4),
            "/ whole, engine": against(
                ratio_of_medians(took, base), 1.10 if name.startswith(("casc", "one")) else None
            ),
        }
        for name, took in times.items()
    }
    shape = list(inputs.arrays["input"].shape[1:])
    record.write(figures, rounds=given.rounds, calls=given.calls, threads=1, batch=1, input=shape)


if __name__ == "__main__":
    main()
