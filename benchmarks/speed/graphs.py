"""One graph that exits by itself against the cascade, the truncated networks and the whole one: one thread.

A network is trained on the digits and calibrated, so that real images leave where a real policy lets them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from engine import bare
from record import Record, against
from turns import calls_in_turn

import sdcompress
from sdcompress.artifact.read import open_artifact
from sdcompress.benchmarking.stats import ratio_of_means, ratio_of_medians
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.runtime.engine import Float
from sdcompress.runtime.open import open_engine

RECIPE = {
    "data": {"name": "digits"},
    "exits": {"count": 3, "head": "bottleneck", "width_cap": 64},
    "method": "byot",
}
IMAGES = 32  # of one exit, and of a batch

Calls = Mapping[str, Callable[[Float], Any]]


def artifacts(model: str, epochs: int, max_drop: float, folder: Path) -> list[str]:
    """The calibrated cascade, its two graphs, and the network truncated at each exit; returns the exits' names."""
    train = {"epochs": epochs, "batch_size": 64, "device": "cpu"}
    run = sdcompress.train({**RECIPE, "model": {"name": f"cifar:{model}"}, "train": train}, folder / "train").path
    sdcompress.export(run, folder / "plain", layout="cascade")
    made = sdcompress.calibrate(folder / "plain", folder / "cascade", {"max_drop": max_drop, "fit_temperature": False})
    for kind in ("graph", "if"):
        sdcompress.export(folder / "cascade", folder / kind, layout=kind)
    exits = [exit_.name for exit_ in made.exits]
    for exit_ in exits:
        sdcompress.export(run, folder / exit_, layout="single", truncate_at=exit_)
    return exits


def measure(folder: Path, exits: list[str], rounds: int, seconds: float) -> dict[str, Any]:
    cascade = open_engine(folder / "cascade", threads=1)
    samples = open_trained_model(folder / "cascade").dataset().test
    inputs = cascade.preprocess(samples.examples(range(len(samples))))
    left = cascade(inputs).exit_index
    one = {"graph": bare(folder / "graph" / "model.onnx"), "if": bare(folder / "if" / "model.onnx")}
    truncated = {exit_: bare(folder / exit_ / "model.onnx") for exit_ in exits}
    whole = {"whole network": truncated[exits[-1]]}
    made = open_artifact(folder / "cascade").manifest.policy
    assert made is not None
    figures: dict[str, Any] = {
        "shares_on_test": {name: round(float((left == k).mean()), 4) for k, name in enumerate(exits)},
        "thresholds": made.thresholds,
    }
    for k, name in enumerate(exits):
        chosen = inputs[left == k][:IMAGES]
        if len(chosen):
            calls = {**one, "cascade": cascade, "truncated network": truncated[name], **whole}
            figures[f"batch 1, images that leave at {name}"] = _alone(calls, chosen, rounds, seconds)
    order = np.random.default_rng(0).permutation(len(inputs))
    for size in (1, 8, 32):
        mixed = inputs[order[: size * max(1, 256 // size)]]
        batches = [mixed[at : at + size] for at in range(0, len(mixed), size)]
        calls = {"graph": one["graph"], "cascade": cascade, **whole}
        times = calls_in_turn(calls, batches, rounds=rounds, seconds=seconds)
        figures[f"batch {size}, a mix"] = {
            "mean_call_ms": {name: round(float(np.concatenate(found).mean()), 4) for name, found in times.items()},
            "graph / cascade": against(ratio_of_means(times["graph"], times["cascade"]), None),
            "graph / whole network": against(ratio_of_means(times["graph"], times["whole network"]), None),
        }
    return figures


def _alone(calls: Calls, chosen: Float, rounds: int, seconds: float) -> dict[str, Any]:
    """Medians, and each against the network truncated at the exit where these images leave."""
    batches = [chosen[at : at + 1] for at in range(len(chosen))]
    times = calls_in_turn(dict(calls), batches, rounds=rounds, seconds=seconds)
    base = times["truncated network"]
    return {
        "images": len(chosen),
        "median_call_ms": {name: round(float(np.median(np.concatenate(found))), 4) for name, found in times.items()},
        **{
            f"{name} / truncated network": against(ratio_of_medians(found, base), None)
            for name, found in times.items()
            if found is not base
        },
    }


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__)
    read.add_argument("--models", nargs="+", default=["resnet18", "resnet8"])
    read.add_argument("--epochs", type=int, default=3)
    read.add_argument("--max-drop", type=float, default=0.02)
    read.add_argument("--rounds", type=int, default=15)
    read.add_argument("--seconds", type=float, default=0.2, help="of one turn")
    given = read.parse_args()
    record = Record()
    figures = {}
    for model in given.models:
        with tempfile.TemporaryDirectory() as folder:
            exits = artifacts(model, given.epochs, given.max_drop, Path(folder))
            figures[model] = measure(Path(folder), exits, given.rounds, given.seconds)
    record.write(figures, threads=1, image=[1, 32, 32], **{k: v for k, v in vars(given).items() if k != "models"})


if __name__ == "__main__":
    main()
