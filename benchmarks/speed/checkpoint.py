"""What a checkpoint costs: writing one against an epoch, and going on from one against an epoch. One thread.

The epoch is that of 50,000 images (CIFAR), from the median step.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from record import Record
from training import BATCH, data

from sdcompress import recipes
from sdcompress.checkpoint import open_checkpoint
from sdcompress.training.hardware import launch
from sdcompress.training.trainer import Trainer

IMAGES, TARGET_WRITE, TARGET_RESUME = 50_000, 0.02, 1.0


def timed(call: Callable[[], Any]) -> float:
    begin = perf_counter()
    call()
    return perf_counter() - begin


def measure(model: str, repeats: int, steps: int, out: Path) -> dict[str, Any]:
    spec = recipes.read(
        {
            "model": {"name": f"cifar:{model}"},
            "exits": {"count": 2},
            "method": "byot",
            "train": {"epochs": 2, "batch_size": BATCH, "optimizer": {"lr": 0.01}, "device": "cpu"},
        }
    )
    dataset, fabric = data(steps), launch(spec.train)
    trainer = Trainer(spec, dataset, fabric, out)
    trainer.learner.begin_epoch()
    took = [timed(lambda parts=parts: trainer.learner.learn(parts)) for parts in trainer.batches.epoch(0)]
    epoch = float(np.median(took[1:])) * (IMAGES // BATCH)
    writes = [timed(trainer._keep) for _ in range(repeats)]  # noqa: SLF001 - what the loop calls
    resumes = [timed(lambda: Trainer(spec, dataset, fabric, out, open_checkpoint(out))) for _ in range(repeats)]
    write, resume = float(np.median(writes)), float(np.median(resumes))
    size = sum(path.stat().st_size for path in open_checkpoint(out).path.iterdir())
    return {
        "checkpoint_mb": round(size / 1e6, 2),
        "epoch_s": round(epoch, 2),
        "write_s": round(write, 4),
        "write / epoch": round(write / epoch, 6),
        "resume_s": round(resume, 4),
        "resume / epoch": round(resume / epoch, 6),
        "kept": write / epoch < TARGET_WRITE and resume / epoch < TARGET_RESUME,
    }


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__)
    read.add_argument("--models", nargs="+", default=["resnet8:12", "resnet18:4"], metavar="NAME:STEPS")
    read.add_argument("--repeats", type=int, default=5)
    given = read.parse_args()
    torch.set_num_threads(1)
    record, figures = Record(), dict[str, Any]()
    for wanted in given.models:
        model, _, steps = wanted.partition(":")
        with tempfile.TemporaryDirectory() as folder:
            figures[model] = measure(model, given.repeats, int(steps), Path(folder))
    record.write(figures, threads=1, batch=BATCH, images=IMAGES)


if __name__ == "__main__":
    main()
