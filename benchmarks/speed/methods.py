"""What each method costs in a training step: multiply-accumulates counted, and time measured, against the baseline's.

One thread; each method takes turns with the baseline, both in processes of their own. Methods with phases are in their
last one: fastbert with a frozen backbone, born_again with a teacher. The counted multiplier is of all
convolutions and matrix products of a step, forward and backward, teachers and further views included.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import Record, against
from training import data
from turns import loops_in_turn, steps_of

from sdcompress import methods, recipes, registry
from sdcompress.benchmarking.stats import ratio_of_medians
from sdcompress.models._trace import MacCounter
from sdcompress.training.hardware import launch
from sdcompress.training.trainer import StopRequest, Trainer

BATCH = 32
COMBINED = ("eed+ps_kd", "self_distillation+ps_kd")
TARGET = 1.10  # of the counted multiplier


def recipe(model: str, method: str) -> Any:
    """A recipe of one epoch for each phase of the method."""
    phases = len(methods.build(recipes.read({"method": method}).method).phases)
    return recipes.read(
        {
            "model": {"name": f"cifar:{model}", "options": {"dropout": 0.1}},  # for r_drop; the same for all
            "exits": {
                "count": 3,
                "head": "attention" if "self_distillation" in method else "sepconv",
                "width_cap": 512,
            },
            "method": method,
            "train": {
                "epochs": phases,
                "batch_size": BATCH,
                "optimizer": {"lr": 0.01},
                "schedule": {"name": "constant"},
                "device": "cpu",
            },
        },
    )


def trainer(model: str, method: str, steps: int, out: Path) -> Trainer:
    """In its last phase: what comes before is passed over, not trained."""
    spec = recipe(model, method)
    made = Trainer(spec, data(steps, BATCH), launch(spec.train), out / method)
    made.learner.step = (spec.train.epochs - 1) * made.batches.steps_per_epoch
    return made


def counted(model: str, method: str, out: Path) -> int:
    """MACs of one step, forward and backward."""
    made = trainer(model, method, 2, out)
    made.learner.begin_epoch()
    first, second = made.batches.epoch(made.recipe.train.epochs - 1)
    made.learner.learn(first)  # memories are filled, adapters are there
    with MacCounter() as counter:
        made.learner.learn(second)
    return counter.total


def measure(model: str, method: str, rounds: int, steps: int, out: Path) -> dict[str, Any]:
    count = steps_of(rounds, steps)

    def loop(name: str) -> Callable[[Callable[..., None]], None]:
        def run(on_step: Callable[..., None]) -> None:
            trainer(model, name, count, out / method).run(StopRequest(), on_step=on_step)

        return run

    times, _ = loops_in_turn({"baseline": loop("baseline"), method: loop(method)}, rounds=rounds, steps=steps)
    macs = counted(model, method, out / "count") / counted(model, "baseline", out / "count")
    ratio = ratio_of_medians(times[method], times["baseline"])
    return {
        "counted": round(macs, 4),
        "measured": against(ratio, TARGET * macs),
        "measured / counted": round(ratio.value / macs, 4),
        "median_step_ms": {name: round(float(np.median(np.concatenate(found))), 1) for name, found in times.items()},
    }


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__)
    read.add_argument("--model", default="resnet18", help="of the family cifar")
    read.add_argument("--rounds", type=int, default=5)
    read.add_argument("--steps", type=int, default=1, help="of a round")
    read.add_argument("--methods", nargs="+", help="only these")
    given = read.parse_args()
    torch.set_num_threads(1)
    record, figures = Record(), dict[str, Any]()
    wanted = given.methods or [*registry.names(methods.ROOM), *COMBINED]
    for method in [name for name in wanted if name != "baseline"]:
        with tempfile.TemporaryDirectory() as folder:
            figures[method] = measure(given.model, method, given.rounds, given.steps, Path(folder))
        print(method, figures[method], flush=True)
    record.write(figures, threads=1, batch=BATCH, image=[3, 32, 32], model=given.model)


if __name__ == "__main__":
    main()
