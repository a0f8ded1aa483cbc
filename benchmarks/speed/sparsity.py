"""Whether onnxruntime turns sparse or shared weights into time on a CPU: one network dense, 2:4 sparse, in 16 values.

    PYTHONPATH=. python benchmarks/speed/sparsity.py NAME=ARTIFACT ...

ARTIFACT has the layout single. Only its large weights are changed, so that outputs are worthless and times are what
such a network would take. Processor time of the thread, in turns.
"""

from __future__ import annotations

import argparse
import gzip
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from record import Record

from sdcompress.artifact.read import open_artifact
from sdcompress.benchmarking.stats import ratio_of_medians

LEAST = 1024  # values of a weight that is changed
Array = Any


def two_of_four(weight: Array) -> Array:
    """Return the weight without the two smallest of each four values along its inputs."""
    flat = weight.reshape(weight.shape[0], -1) if weight.ndim > 2 else weight.T  # MatMul has its inputs first
    rows = flat[:, : flat.shape[1] // 4 * 4].reshape(flat.shape[0], -1, 4).copy()
    order = np.argsort(np.abs(rows.astype(np.float32)), axis=-1)
    np.put_along_axis(rows, order[..., :2], 0, axis=-1)
    changed = flat.copy()
    changed[:, : rows.shape[1] * 4] = rows.reshape(flat.shape[0], -1)
    return changed.reshape(weight.shape) if weight.ndim > 2 else np.ascontiguousarray(changed.T)


def sixteen_values(weight: Array) -> Array:
    """Return the weight rounded to 16 values."""
    low, high = float(weight.min()), float(weight.max())
    step = (high - low) / 15 or 1.0
    return (np.round((weight.astype(np.float32) - low) / step) * step + low).astype(weight.dtype)


KINDS: dict[str, Callable[[Array], Array]] = {"dense": lambda w: w, "2:4": two_of_four, "16 values": sixteen_values}


def variant(model: onnx.ModelProto, change: Callable[[Array], Array]) -> tuple[bytes, float]:
    """Return the model with changed weights, and the share of their values that is 0."""
    other, zeros, values = onnx.ModelProto(), 0, 0
    other.CopyFrom(model)
    for initializer in other.graph.initializer:
        weight = numpy_helper.to_array(initializer)
        if weight.ndim < 2 or weight.size < LEAST or weight.dtype not in (np.float32, np.int8):
            continue
        changed = change(weight)
        zeros, values = zeros + int((changed == 0).sum()), values + weight.size
        initializer.CopyFrom(numpy_helper.from_array(changed, initializer.name))
    if not values:
        raise SystemExit(f"No weight has {LEAST} values: such a network is too small to be made sparse.")
    return other.SerializeToString(), zeros / values


def measure(path: Path, rounds: int) -> dict[str, Any]:
    artifact = open_artifact(path)
    (segment,) = artifact.manifest.segments
    model = onnx.load(artifact.file(segment))
    inputs = artifact.modality.collate(artifact.golden().examples[:1]).arrays
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    files = {kind: variant(model, change) for kind, change in KINDS.items()}
    sessions = {
        kind: onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        for kind, (content, _) in files.items()
    }
    took: dict[str, list[Any]] = {kind: [] for kind in sessions}
    for round_ in range(rounds + 1):
        for kind, session in sessions.items():
            times = []
            for _ in range(20):
                start = time.thread_time_ns()
                session.run(None, inputs)
                times.append((time.thread_time_ns() - start) / 1e6)
            if round_:
                took[kind].append(np.array(times))
    figures = {}
    for kind, (content, zeros) in files.items():
        ratio = ratio_of_medians(took[kind], took["dense"])
        figures[kind] = {
            "zeros": round(zeros, 3),
            "ms": round(float(np.median(np.concatenate(took[kind]))), 4),
            "of_dense": [round(value, 3) for value in (ratio.value, ratio.low, ratio.high)],
            "bytes": len(content),
            "gzip_bytes": len(gzip.compress(content, 6)),
        }
    return figures


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("artifacts", nargs="+", help="NAME=FOLDER")
    read.add_argument("--rounds", type=int, default=20)
    given = read.parse_args()
    record = Record()
    named = dict(one.split("=", 1) for one in given.artifacts)
    figures = {name: measure(Path(folder), given.rounds) for name, folder in named.items()}
    record.write(figures, threads=1, rounds=given.rounds, calls_of_a_round=20, clock="processor time of the thread")


if __name__ == "__main__":
    main()
