"""Batches of 1, 8 and 32 texts: the whole network, early exit, and the ideal, in turns, one thread.

python benchmarks/tasks/batches.py WHOLE EARLY --data-dir DATA

WHOLE is an artifact of the layout single, EARLY a calibrated cascade of the same network. Texts are the first of the
test split in a random order. Times are CPU time of the thread, in milliseconds for one text: other processes lengthen
it only through the caches. Of each batch the median of the rounds counts.

Every candidate runs batches as they come, padded to their longest text, and "by length": in the parts of like lengths
that the engine of EARLY makes of a batch. The ideal is the time of the whole network, of which every text pays the
stages that it reaches: no cost for exits, and batches of few rows as fast for each row as those of many.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import thread_time_ns
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent.parent / "speed"))
from record import Record

from sdcompress.artifact.execution_target import ExecutionTarget
from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.evaluation.trained_model import open_trained_model
from sdcompress.modalities import Inputs
from sdcompress.options import Options
from sdcompress.runtime.backends.onnxruntime import load
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.segments import ArrayExecutor

SEED, BATCHES = 0, (1, 8, 32)
Call = Callable[[Inputs], Any]


class Cascade:
    """An artifact with its engine and, of the same graphs, the executor whose stages are timed."""

    def __init__(self, artifact: Artifact) -> None:
        manifest = artifact.manifest
        graphs = [load(artifact.file(one), one, threads=1, device="cpu") for one in manifest.segments]
        self.executor = ArrayExecutor(manifest, graphs, ExecutionTarget())
        self.engine = CascadeEngine(manifest, self.executor, artifact.modality)
        self.exits = len(manifest.exits)

    def stage_ms(self, inputs: Inputs) -> np.ndarray:
        """CPU time of each stage with all rows, [E]."""
        ends = [thread_time_ns()]
        with self.executor.start(inputs) as forward:
            for exit_index in range(self.exits):
                forward.stage(exit_index)
                ends.append(thread_time_ns())
        return np.diff(ends) / 1e6


def timed(call: Call, inputs: Inputs) -> float:
    """CPU time of a call, in ms."""
    start = thread_time_ns()
    call(inputs)
    return (thread_time_ns() - start) / 1e6


def measured(whole: Cascade, early: Cascade, batches: list[Inputs], rounds: int) -> dict[str, Any]:
    """All candidates on batches of one size."""
    policy = early.engine.policy
    assert policy is not None, "EARLY is calibrated"
    undivided = early.engine.with_policy(policy.model_copy(update={"stage_times": None}))
    parts = [[inputs[rows] for rows in early.engine.rows_by_length(inputs)] for inputs in batches]
    rows = [early.engine.rows_by_length(inputs) for inputs in batches]
    calls: dict[str, Callable[[int], Any]] = {
        "whole": lambda at: timed(whole.engine, batches[at]),
        "early": lambda at: timed(undivided, batches[at]),
        "every_stage": lambda at: timed(lambda inputs: early.engine.forced(inputs, -1), batches[at]),
        "stages": lambda at: early.stage_ms(batches[at]),
        "whole_by_length": lambda at: [timed(whole.engine, part) for part in parts[at]],
        "early_by_length": lambda at: timed(early.engine, batches[at]),
    }
    times: dict[str, list[list[Any]]] = {name: [[] for _ in batches] for name in calls}
    rng = np.random.default_rng(SEED)
    for turn in range(rounds + 1):  # the first warms up
        for at in rng.permutation(len(batches)):
            for name in rng.permutation(list(calls)):
                spent = calls[str(name)](int(at))
                if turn:
                    times[str(name)][at].append(spent)
    ms = {name: [np.median(of, axis=0) for of in each] for name, each in times.items()}
    together, apart = ([engine(inputs) for inputs in batches] for engine in (undivided, early.engine))
    reach = [np.arange(early.exits) <= one.exit_index[:, None] for one in together]  # bool [B, E]
    ideal = [w * _share(s, r) for w, s, r in zip(ms["whole"], ms["stages"], reach, strict=True)]
    ideal_by_length = [
        sum(w * _share(s, r[chosen]) for w, chosen in zip(each, chosen_rows, strict=True))
        for each, s, r, chosen_rows in zip(ms["whole_by_length"], ms["stages"], reach, rows, strict=True)
    ]
    texts = sum(map(len, batches))
    per_text = {name: float(sum(map(np.sum, each))) / texts for name, each in ms.items() if name != "stages"}
    per_text |= {"ideal": float(sum(ideal)) / texts, "ideal_by_length": float(sum(ideal_by_length)) / texts}
    return {
        "batch": len(batches[0]),
        "texts": texts,
        "tokens_with_padding": float(np.mean([next(iter(b.arrays.values())).shape[1] for b in batches])),
        "parts_of_a_batch": float(np.mean(list(map(len, parts)))),
        "ms_per_text": per_text,
        "speed_up": _ratio(per_text, "whole", "early"),
        "ideal_speed_up": _ratio(per_text, "whole", "ideal"),
        "of_the_ideal_throughput": _ratio(per_text, "ideal", "early"),
        "every_stage_over_whole": _ratio(per_text, "every_stage", "whole"),
        "by_length": {
            "speed_up": _ratio(per_text, "whole_by_length", "early_by_length"),
            "of_the_ideal_throughput": _ratio(per_text, "ideal_by_length", "early_by_length"),
            "of_the_ideal_throughput_of_padded_batches": _ratio(per_text, "ideal", "early_by_length"),
            "speed_up_by_the_parts": _ratio(per_text, "early", "early_by_length"),
            "speed_up_by_parts_and_exits": _ratio(per_text, "whole", "early_by_length"),
            "other_exits": sum(int((a.exit_index != b.exit_index).sum()) for a, b in zip(together, apart, strict=True)),
            "other_decisions": sum(int((a.decision != b.decision).sum()) for a, b in zip(together, apart, strict=True)),
            "largest_difference": max(
                float(np.abs(a.outputs - b.outputs).max()) for a, b in zip(together, apart, strict=True)
            ),
        },
    }


def _share(stages: np.ndarray, reach: np.ndarray) -> float:
    """Share of the stages' time that rows need which reach them."""
    return float((reach.mean(axis=0) * stages).sum() / stages.sum())


def _ratio(ms: dict[str, float], above: str, below: str) -> float:
    return ms[above] / ms[below]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("whole")
    parser.add_argument("early")
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--texts", type=int, default=256, help="for each size of a batch; a multiple of it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", default="batches", help="of the record")
    given = parser.parse_args()
    record = Record(Path(__file__).resolve().parent, given.name)
    artifacts = {name: open_artifact(getattr(given, name)) for name in ("whole", "early")}
    whole, early = map(Cascade, artifacts.values())
    dataset = open_trained_model(artifacts["early"], Options(data_dir=Path(given.data_dir))).dataset()
    chosen = np.random.default_rng(SEED).permutation(len(dataset.test))[: given.texts]
    results = []
    for size in BATCHES:
        batches = [
            early.engine.modality.collate(dataset.test.examples(chosen[start : start + size]))
            for start in range(0, len(chosen) - size + 1, size)
        ]
        results.append(measured(whole, early, batches, given.rounds))
        print(json.dumps(results[-1], indent=1), flush=True)
    digests = {
        name: {"digest": one.manifest.digest, "precisions": one.manifest.precisions} for name, one in artifacts.items()
    }
    record.write(
        {"results": results},
        artifacts=digests,
        seed=SEED,
        rounds=given.rounds,
        threads=1,
        clock="CPU time of the thread",
    )


if __name__ == "__main__":
    main()
