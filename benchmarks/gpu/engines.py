"""Our engines against a bare loop, against trtexec, and against what the card can do at most."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
from clocks import Sample, in_turn, medians, ratio, wall
from place import BATCHES, NotMeasured, Place, engine, inputs_of, needs, needs_tensorrt

from sdcompress.artifact.execution_target import plans_digest
from sdcompress.artifact.read import open_artifact
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.schema.manifest import Tensor


def single(place: Place, precision: str) -> dict[str, Any]:
    """Our engine of the single network against a bare loop on the same plan."""
    needs_tensorrt()
    from bare import Bare

    path = place.built("single", precision)
    ours, artifact = engine(path), open_artifact(path)
    executor: Any = ours._executor  # noqa: SLF001 - its stream and its launches are what is timed
    chosen = next(e for e in artifact.manifest.engines if executor.execution_target.plans == plans_digest(e))
    plan = artifact.file(chosen.plans[0]).read_bytes()
    found: dict[str, Any] = {}
    for rows in (size for size in BATCHES if size <= executor.largest):
        profile = executor.buckets.profiles[executor.buckets.index(rows)]  # the one that ours runs it in
        inputs, bare = (
            np.resize(inputs_of(artifact), (rows, *ours.modality.tensors[0].shape[1:])),
            Bare(plan, rows, profile),
        )
        call = partial(ours.forced, inputs, -1)
        kernels = in_turn({"ours": stage_clock(executor, 0, rows), "bare": bare.compute_only})
        whole = in_turn({"ours": wall(call), "bare": wall(partial(bare.answer, inputs))})
        found[f"batch {rows}"] = {
            "four clocks of the bare loop": medians(in_turn({"bare": partial(bare, inputs)}, rounds=5))["bare"],
            "our copies": medians(in_turn({"ours": copy_clock(executor, rows)}, rounds=5))["ours"],
            "trtexec": trtexec(artifact.file(chosen.plans[0]), artifact.manifest.inputs[0], rows, profile),
            "gpu_compute": {**medians(kernels), "ours / bare": ratio(kernels, "ours", "bare", "gpu_compute")},
            "end_to_end": {**medians(whole), "ours / bare": ratio(whole, "ours", "bare", "end_to_end")},
            "target": 1.02,
        }
        bare.close()
    return {**found, "cuda graphs": recorded(executor)}


def recorded(executor: Any) -> dict[str, bool]:
    """Of which buckets all segments are replayed as CUDA graphs."""
    return {
        str(rows): all(launch.recorded for launch in launches)
        for rows, launches in zip(executor.buckets.rows, executor._launches, strict=True)  # noqa: SLF001
    }


def stage_clock(executor: Any, position: int, rows: int) -> Callable[[], Sample]:
    """The kernels of one stage between two events, what went before left as it is in memory."""
    cuda = executor.device
    marks = [cuda.event() for _ in range(2)]

    def once() -> Sample:
        cuda.record(marks[0])
        began = perf_counter_ns()
        executor.stage(position, rows)
        queued = perf_counter_ns()
        cuda.record(marks[1])
        cuda.finish()
        return {"gpu_compute": cuda.elapsed_ms(*marks), "enqueue": (queued - began) / 1e6}

    return once


def copy_clock(executor: Any, rows: int) -> Callable[[], Sample]:
    """What our engine copies for a batch that leaves at the last exit: inputs up, logits down."""
    cuda, memory = executor.device, executor.memory
    marks = [cuda.event() for _ in range(3)]
    (name,) = memory.staging
    place, staged, reading = memory.bindings[name], memory.staging[name][:rows], memory.outputs[-1]

    def once() -> Sample:
        cuda.record(marks[0])
        cuda.upload(place.address, staged)
        cuda.record(marks[1])
        cuda.download(reading.host[: reading.size(rows)], reading.start)
        cuda.record(marks[2])
        cuda.finish()
        return {"h2d": cuda.elapsed_ms(*marks[:2]), "d2h": cuda.elapsed_ms(*marks[1:])}

    return once


def trtexec(plan: Path, entry: Tensor, rows: int, profile: int) -> Any:
    """The median GPU compute time that NVIDIA's own tool finds for the plan, ms; why not, where it is not there."""
    tool = shutil.which("trtexec")
    if tool is None:
        return "not measured: trtexec is not there"
    knows = subprocess.run([tool, "--help"], capture_output=True, text=True, check=False).stdout
    if profile and "--useProfile" not in knows:
        return "not measured: this trtexec runs the first profile only"
    shape = "x".join(map(str, (rows, *entry.shape[1:])))
    command = [tool, f"--loadEngine={plan}", f"--shapes={entry.name}:{shape}", "--useCudaGraph", "--duration=3"]
    command += [f"--useProfile={profile}"] if profile else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return gpu_compute(done.stdout) or f"not measured: trtexec ended with {done.returncode}"


def gpu_compute(text: str) -> float | None:
    """The median of its line: GPU Compute Time: min = 1 ms, max = 1 ms, mean = 1 ms, median = 1 ms."""
    found = re.search(r"GPU Compute Time:.*?median = ([0-9.]+) ms", text)
    return float(found[1]) if found else None


def limits(place: Place, precision: str) -> dict[str, Any]:
    """Every stage of the cascade against the ceilings of the same card: counted operations and bytes, at the least."""
    needs_tensorrt()
    needs("onnx")  # for the matrix product
    if precision in {"int8", "fp8"}:
        raise NotMeasured(f"no ceiling of {precision} is measured: FP16 and FP32")
    from ceilings import copies, products

    path = place.built("cascade", precision)
    ours, top, peaks = engine(path), copies(), products()
    executor: Any = ours._executor  # noqa: SLF001
    bandwidth, peak = top["device_gb_s"], peaks["fp16" if precision == "fp16" else "fp32"]
    if not isinstance(peak, float):
        raise NotMeasured(f"no ceiling of {precision} was measured: {peak}")
    rows_of = [rows for rows in (1, 32, 64) if rows <= executor.largest]
    found: dict[str, Any] = {"ceilings": {"copies": top, "tflops": peaks}}
    sums = {rows: [0.0, 0.0] for rows in rows_of}
    for position, exit_ in enumerate(ours.manifest.exits):
        for rows in rows_of:
            ms = medians(in_turn({"stage": stage_clock(executor, position, rows)}, rounds=5))["stage"]
            operations, moved = counted(ours, executor, position, rows)
            least_ms = max(operations / peak / 1e9, moved / bandwidth / 1e6)
            sums[rows][0] += least_ms
            sums[rows][1] += ms["gpu_compute_ms"]
            found[f"{exit_.name}, batch {rows}"] = {
                **ms, "flops": operations, "bytes_at_least": moved, "least_ms": round(least_ms, 5),
                "bound_by": "operations" if operations / peak / 1e9 == least_ms else "bytes",
                "share_of_limit": round(least_ms / ms["gpu_compute_ms"], 3),
            }  # fmt: skip
    for rows, (least, took) in sums.items():
        found[f"all stages, batch {rows}"] = {"share_of_limit": round(least / took, 3)}
    return found


def counted(network: CascadeEngine, executor: Any, position: int, rows: int) -> tuple[int, int]:
    """Operations of a stage, two for each multiply-add, and the bytes that it must move: weights, inputs, outputs."""
    manifest, places = network.manifest, executor.memory.bindings
    first = manifest.exits[position - 1].segment + 1 if position else 0
    segments = manifest.segments[first : manifest.exits[position].segment + 1]
    element = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}
    macs = sum(segment.macs for segment in segments)
    weights = sum(segment.parameters * element[segment.precision] for segment in segments)
    borders = sum(
        places[tensor.name].spec.row_bytes for segment in segments for tensor in (*segment.inputs, *segment.outputs)
    )
    return 2 * macs * rows, weights + borders * rows
