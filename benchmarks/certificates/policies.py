"""Which exit policy orders the images best? The mean cost at a drop, with the best thresholds for the same images.

Policies with parameters are fitted on some images; on all others the cheapest thresholds that keep the drop are found,
and their mean cost is told as a share of the whole network's. That is the most that a policy could give: nothing is
certified here, and no policy has the luck of another calibration.
"""

from __future__ import annotations

import argparse
import json
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from record import Record
from validity import held_out, trained_by

from sdcompress import registry
from sdcompress.calibration.thresholds import choose_thresholds
from sdcompress.policies import ROOM, exit_index_of, policy_class, scores
from sdcompress.policies._base import ExitPolicy, Signals
from sdcompress.tasks.classification import Classification

CORRECTNESS = "learned, for correctness"


TASK = Classification(("a", "b"))  # signals do not depend on the names of the classes


def of(signals: list[Signals], rows: np.ndarray) -> list[Signals]:
    return [exit_.map(itemgetter(rows)) for exit_ in signals]


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("artifact", type=Path, help="a cascade")
    read.add_argument("--name", required=True, help="of the data, in the record")
    read.add_argument("--fit", type=int, default=1250, help="images that parameters are fitted on")
    read.add_argument("--splits", type=int, default=20)
    read.add_argument("--max-drop", type=float, nargs="+", default=[0.005, 0.01, 0.02])
    read.add_argument("--data-dir", type=Path)
    read.add_argument("--cache", type=Path, help="folder for the logits")
    given = read.parse_args()
    record = Record(f"policies-{given.name}")
    held = held_out(given.artifact, given.data_dir, given.cache)
    signals, costs = [TASK.signals(exit_) for exit_ in held.logits], np.cumsum(held.stage_ms)
    kinds: dict[str, type[ExitPolicy]] = {
        name: policy_class(name) for name in registry.names(ROOM) if name != "patience"
    }
    kinds[CORRECTNESS] = policy_class("learned")
    found: dict[str, dict[str, list[float]]] = {name: {f"{drop:g}": [] for drop in given.max_drop} for name in kinds}
    for split in range(given.splits):
        order = np.random.default_rng(split).permutation(held.count)
        fit, rest = order[: given.fit], order[given.fit :]
        loss, seen = np.float32(~held.right[:, rest]), of(signals, rest)
        for name, kind in kinds.items():
            # a last exit that is always right: then "nothing is lost" means "this exit is right"
            truth = (
                held.right[:, fit]
                if name != CORRECTNESS
                else np.vstack([held.right[:-1, fit], np.ones_like(fit, bool)])
            )
            policy = kind.fit(of(signals, fit), np.float32(~truth))
            score = scores(policy, seen)
            for drop in given.max_drop:
                thresholds = choose_thresholds(score, loss, held.stage_ms, drop, shared=policy.shared)
                found[name][f"{drop:g}"].append(float(costs[exit_index_of(score, thresholds)].mean() / costs[-1]))
    figures: dict[str, Any] = {
        name: {
            drop: [round(float(np.mean(cost)), 4), round(float(np.std(cost, ddof=1)), 4)] for drop, cost in by.items()
        }
        for name, by in found.items()
    }
    print(json.dumps(figures, indent=1))
    accuracies = [round(float(one), 4) for one in held.right.mean(axis=1)]
    record.write(
        {"cost, mean and deviation over splits": figures, "accuracy of the exits": accuracies},
        images=held.count,
        fit=given.fit,
        splits=given.splits,
        trained=trained_by(given.artifact),
    )


if __name__ == "__main__":
    main()
