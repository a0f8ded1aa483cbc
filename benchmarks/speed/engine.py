"""The engine against a bare ONNX Runtime session: one image, one thread, the same options, the same files.

The weights are those of one short epoch: they decide nothing about time.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from record import Record, against
from turns import calls_in_turn

import sdcompress
from sdcompress.artifact.read import open_artifact
from sdcompress.benchmarking.stats import ratio_of_medians
from sdcompress.modalities import Inputs
from sdcompress.runtime.open import open_engine

RECIPE = {
    "data": {"name": "digits", "train_limit": 128},
    "exits": {"count": 3, "head": "bottleneck", "width_cap": 64},
    "method": "byot",
    "train": {"epochs": 1, "batch_size": 64, "device": "cpu"},
}


def artifacts(model: str, folder: Path) -> tuple[Path, list[Path]]:
    """The cascade, and the network truncated at each of its exits."""
    run = sdcompress.train({**RECIPE, "model": {"name": f"cifar:{model}"}}, folder / "train").path
    sdcompress.export(run, folder / "cascade", layout="cascade")
    exits = [exit_.name for exit_ in open_artifact(folder / "cascade").manifest.exits]
    for exit_ in exits:
        sdcompress.export(run, folder / exit_, layout="single", truncate_at=exit_)
    return folder / "cascade", [folder / exit_ for exit_ in exits]


def bare(file: Path) -> Callable[[Inputs], Any]:
    """What a person writes who has only the file."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs.arrays)


def measure(model: str, rounds: int, seconds: float, folder: Path) -> dict[str, Any]:
    cascade_folder, singles = artifacts(model, folder)
    single, cascade = open_engine(singles[-1], threads=1), open_engine(cascade_folder, threads=1)
    inputs = single.preprocess(open_artifact(singles[-1]).golden().examples)
    batches = [inputs[at : at + 1] for at in range(16)]
    calls: dict[str, Callable[[Inputs], Any]] = {"single": single}
    for position, truncated in enumerate(singles):
        calls[f"bare {truncated.name}"] = bare(truncated / "model.onnx")
        calls[f"forced {truncated.name}"] = partial(cascade.forced, exit=position)
    times = calls_in_turn(calls, batches, rounds=rounds, seconds=seconds)
    medians = {name: float(np.median(np.concatenate(found))) for name, found in times.items()}
    last = singles[-1].name

    def target(bare_name: str, factor: float) -> float | None:
        """The targets are for networks that work for a millisecond at least; below, microseconds decide."""
        return factor if medians[f"bare {bare_name}"] >= 1.0 else None

    figures: dict[str, Any] = {
        "median_call_ms": {name: round(ms, 4) for name, ms in medians.items()},
        "engine / bare session": against(ratio_of_medians(times["single"], times[f"bare {last}"]), target(last, 1.05)),
        "engine - bare session, us": round(1e3 * (medians["single"] - medians[f"bare {last}"]), 1),
    }
    for passed, truncated in zip(cascade.exit_costs, singles, strict=True):
        name, alone = truncated.name, open_engine(truncated, threads=1).exit_costs[0]
        ratio = ratio_of_medians(times[f"forced {name}"], times[f"bare {name}"])
        figures[f"cascade forced to {name} / truncated network"] = {
            **against(ratio, target(name, 1.10)),
            "macs_ratio": round(passed.macs / alone.macs, 4),  # the heads that a sample passes on its way
        }
    return figures


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__)
    read.add_argument("--models", nargs="+", default=["resnet18", "resnet8"])
    read.add_argument("--rounds", type=int, default=20)
    read.add_argument("--seconds", type=float, default=0.25, help="of one turn")
    given = read.parse_args()
    record = Record()
    figures = {}
    for model in given.models:
        with tempfile.TemporaryDirectory() as folder:
            figures[model] = measure(model, given.rounds, given.seconds, Path(folder))
    record.write(figures, threads=1, batch=1, image=[1, 32, 32], rounds=given.rounds, seconds=given.seconds)


if __name__ == "__main__":
    main()
