"""Where a training step spends its time: torch's profiler over some steps of our trainer, by operator. One thread.

Shares of a busy machine are near those of a quiet one; times are not.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from record import Record
from torch.profiler import ProfilerActivity, profile
from training import data

from sdcompress import recipes
from sdcompress.training.hardware import launch
from sdcompress.training.trainer import Trainer

# what operators are about; the first that is in the name
KINDS = {
    "convolution_backward": "convolutions, backward",
    "conv": "convolutions, forward",
    "batch_norm_backward": "batch norm, backward",
    "batch_norm": "batch norm, forward",
    "threshold": "ReLU",
    "clamp": "ReLU",
    "relu": "ReLU",
    "fused_sgd": "optimiser",
    "gather": "augmentation",
    "randint": "augmentation",
    "mm": "matrix products",
    "log_softmax": "losses",
    "kl_div": "losses",
    "nll": "losses",
    "cross_entropy": "losses",
}
OTHER = "everything else"


def shares(model: str, method: str, batch: int, steps: int, out: Path) -> dict[str, float]:
    spec = recipes.read(
        {
            "model": {"name": f"cifar:{model}"},
            "exits": {"count": 3 if model == "resnet18" else 2, "head": "sepconv"},
            "method": method,
            "train": {"epochs": 1, "batch_size": batch, "augment": {"crop": 4, "flip": True}, "device": "cpu"},
        }
    )
    trainer = Trainer(spec, data(steps + 2, batch), launch(spec.train), out)
    trainer.learner.begin_epoch()
    batches = trainer.batches.epoch(0)
    for _ in range(2):
        trainer.learner.learn(next(batches))
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for parts in batches:
            trainer.learner.learn(parts)
    spent: dict[str, float] = {}
    for event in found.key_averages():
        kind = next((what for part, what in KINDS.items() if part in event.key.lower()), OTHER)
        spent[kind] = spent.get(kind, 0.0) + event.self_cpu_time_total
    total = sum(spent.values())
    return {kind: round(time / total, 4) for kind, time in sorted(spent.items(), key=lambda item: -item[1])}


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__)
    read.add_argument("--methods", nargs="+", default=["baseline", "byot", "eed"])
    given = read.parse_args()
    torch.set_num_threads(1)
    record, figures = Record(), dict[str, Any]()
    for model, batch, steps in (("resnet8", 64, 8), ("resnet18", 32, 2)):
        with tempfile.TemporaryDirectory() as folder:
            found = {method: shares(model, method, batch, steps, Path(folder) / method) for method in given.methods}
        figures[model] = {"batch": batch, **found}
    record.write(figures, threads=1, image=[3, 32, 32])


if __name__ == "__main__":
    main()
