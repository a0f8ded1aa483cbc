"""ONNX Runtime against OpenVINO on the same artifacts: to the last exit, one sample, one thread, in turns.

What is compared is the processor time of a call, which other work on the machine disturbs less than the clock.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import process_time_ns
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "speed"))
from record import Record, against

from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.benchmarking.stats import ratio_of_medians
from sdcompress.benchmarking.timed_calls import no_collection
from sdcompress.modalities import Inputs
from sdcompress.runtime.open import open_engine

BACKENDS = ("onnxruntime", "openvino")
TOKENS = 25


def samples(artifact: Artifact) -> list[Inputs]:
    """Four golden samples; texts are repeated to, or cut at, the same number of tokens."""
    inputs = artifact.modality.collate(artifact.golden().examples)
    if not artifact.modality.varies:
        return [inputs[row : row + 1] for row in range(4)]
    longest = inputs[[int(inputs.lengths.argmax())]]
    ids, length = longest.arrays["input_ids"], int(longest.lengths[0])
    row = np.resize(ids[0, :length], TOKENS)[None]
    return [Inputs({"input_ids": np.roll(row, k), "attention_mask": np.ones_like(row)}) for k in range(4)]


def turn(call: Callable[[Inputs], Any], inputs: list[Inputs], milliseconds: float) -> np.ndarray:
    """Processor times of the calls of one turn, ms, after one untimed call."""
    call(inputs[-1])
    took: list[int] = []
    while sum(took) < milliseconds * 1e6 or len(took) < 5:
        start = process_time_ns()
        call(inputs[len(took) % len(inputs)])
        took.append(process_time_ns() - start)
    return np.asarray(took, np.float64) / 1e6


def measure(folder: Path, rounds: int, milliseconds: float) -> dict[str, Any]:
    """Both backends on one artifact."""
    artifact = open_artifact(folder)
    inputs, calls = samples(artifact), {}
    golden = artifact.golden()
    prepared = artifact.modality.collate(golden.examples)
    largest = {}
    for backend in BACKENDS:
        engine = open_engine(artifact, backend=backend, threads=1, allow_uncertified=True)
        largest[backend] = float(np.abs(engine.exits(prepared) - golden.outputs).max())
        calls[backend] = partial(engine.forced, exit=-1)
    times: dict[str, list[np.ndarray]] = {backend: [] for backend in BACKENDS}
    with no_collection():
        for call in calls.values():
            turn(call, inputs, milliseconds)
        for at in range(rounds):
            for backend in BACKENDS if at % 2 == 0 else BACKENDS[::-1]:
                times[backend].append(turn(calls[backend], inputs, milliseconds))
    return {
        "precision": " ".join(artifact.manifest.precisions),
        "segments": len(artifact.manifest.segments),
        "median_ms": {name: round(float(np.median(np.concatenate(t))), 4) for name, t in times.items()},
        "openvino / onnxruntime": against(ratio_of_medians(times["openvino"], times["onnxruntime"]), None),
        "largest difference from the checkpoint": largest,
        "tolerance": max(record.tolerance for record in artifact.manifest.parity),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifacts", nargs="+", help="NAME=FOLDER")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--milliseconds", type=float, default=150.0, help="of one turn")
    parser.add_argument("--name", default="runtimes", help="of the JSON")
    given = parser.parse_args()
    record = Record(Path(__file__).parent, given.name)
    named = dict(one.split("=", 1) for one in given.artifacts)
    figures = dict[str, Any]()
    for name, folder in named.items():
        figures[name] = measure(Path(folder), given.rounds, given.milliseconds)
        record.write(figures, rounds=given.rounds, milliseconds=given.milliseconds, threads=1, batch=1, tokens=TOKENS)


if __name__ == "__main__":
    main()
