"""The cascade against the floor of its cost: bare ONNX Runtime sessions that run what must run, and nothing else.

Which images leave where is set beforehand: thresholds are put at quantiles of the scores of a pool of random images,
and batches are drawn from it with the wished mix. The weights are those of one short
epoch: they decide nothing about time.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from engine import artifacts, bare
from record import Record, against
from turns import calls_in_turn

from sdcompress import registry
from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.benchmarking.stats import ratio_of_means, ratio_of_medians
from sdcompress.calibration.stage_timing import stage_times
from sdcompress.data.samples import ArraySamples
from sdcompress.modalities import Inputs
from sdcompress.policies import ROOM, policy_class, restore, scores
from sdcompress.policies._base import Signals
from sdcompress.runtime.backends._base import Graph
from sdcompress.runtime.backends.onnxruntime import load
from sdcompress.runtime.cascade import CascadeEngine, array_cascade
from sdcompress.schema.manifest import Policy, Segment

MIXES = {"50/20/15/15": (0.50, 0.20, 0.15, 0.15), "80/10/5/5": (0.80, 0.10, 0.05, 0.05), "uniform": (0.25,) * 4}
POOL = 1024


def opened(artifact: Artifact, policy: Policy | None) -> CascadeEngine:
    """The cascade under another policy."""
    changed = Artifact(artifact.path, artifact.manifest.model_copy(update={"policy": policy}))
    return array_cascade(changed, lambda segment: load(artifact.file(segment), segment, threads=1, device="cpu"))


class Floor:
    """The segments' bare sessions; what they are given is made before the clock runs."""

    def __init__(self, artifact: Artifact) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._segments = artifact.manifest.segments
        self._sessions = [
            ort.InferenceSession(artifact.file(segment), options, providers=["CPUExecutionProvider"])
            for segment in self._segments
        ]

    def calls(self, inputs: Inputs, left: npt.NDArray[np.int64]) -> list[Callable[[], Any]]:
        """One call for each session that must run, on the rows that have not left before it."""
        found: list[Callable[[], Any]] = []
        tensors = dict(inputs.arrays)
        for position, (segment, session) in enumerate(zip(self._segments, self._sessions, strict=True)):
            stays = left >= position
            if not stays.any():
                break
            feed = {tensor.name: np.ascontiguousarray(tensors[tensor.name][stays]) for tensor in segment.inputs}
            names = [tensor.name for tensor in segment.outputs]
            found.append(partial(session.run, names, feed))
            whole = {tensor.name: tensors[tensor.name] for tensor in segment.inputs}
            tensors.update(zip(names, session.run(names, whole), strict=True))
        return found


def run_all(calls: Sequence[Callable[[], Any]]) -> None:
    for call in calls:
        call()


def thresholds_for(network: CascadeEngine, pool: Inputs, mix: Sequence[float]) -> tuple[float, ...]:
    """Those that let about these shares of the pool leave at each exit."""
    score = scores(restore("max_prob", {}, network.task), network.signals(pool))
    here, found, rest = np.ones(len(pool), bool), [], 1.0
    for exit_, share in enumerate(mix[:-1]):
        found.append(float(np.quantile(score[exit_, here], 1 - share / rest)))
        here &= score[exit_] < np.float32(found[-1])
        rest -= share
    return tuple(found)


def policy_of(thresholds: tuple[float, ...], **fields: Any) -> Policy:
    return Policy(
        thresholds=thresholds,
        max_drop=1.0,
        samples=POOL,
        metric=None,
        reference_metric=None,
        shares=(1.0, *(0.0,) * len(thresholds)),
        **fields,
    )


def drawn(left: npt.NDArray[np.int64], batch: int, mix: Sequence[float], seed: int) -> npt.NDArray[np.int64]:
    """Positions in the pool of a batch with the mix, as nearly as whole rows allow, in random order."""
    rng = np.random.default_rng(seed)
    ends = np.round(np.cumsum(mix) * batch).astype(int)
    counts = np.diff(ends, prepend=0)
    chosen = [rng.choice(np.flatnonzero(left == exit_), count) for exit_, count in enumerate(counts)]
    return rng.permutation(np.concatenate(chosen))


def one_at_a_time(artifact: Artifact, pool: Inputs, single: Callable[[Any], Any], times: Any) -> dict[str, Any]:
    """Batch 1: a mix, and nobody leaving."""
    plain, floor = opened(artifact, None), Floor(artifact)
    mix = MIXES["50/20/15/15"]
    network = opened(artifact, policy_of(thresholds_for(plain, pool, mix), stage_ms=(1.0,) * 4, stage_times=times))
    left = network(pool).exit_index
    rows = drawn(left, 40, mix, seed=0)
    images = [pool[row : row + 1] for row in rows]
    floors = {id(image): floor.calls(image, left[[row]]) for image, row in zip(images, rows, strict=True)}
    mixed = calls_in_turn(
        {"cascade": network, "floor": lambda image: run_all(floors[id(image)])}, images, **SETTINGS["mean"]
    )
    never = opened(artifact, policy_of((2.0, 2.0, 2.0), stage_ms=(1.0,) * 4))
    whole = calls_in_turn({"cascade": never, "monolithic": single}, images, **SETTINGS["mean"])
    return {
        "mix": "50/20/15/15",
        "mean ms": {name: round(float(np.concatenate(found).mean()), 4) for name, found in mixed.items()},
        "mean of the mix / floor": against(ratio_of_means(mixed["cascade"], mixed["floor"]), 1.05),
        "nobody leaves / monolithic network": against(ratio_of_medians(whole["cascade"], whole["monolithic"]), 1.05),
    }


def host_work(artifact: Artifact, signals: Sequence[Signals]) -> dict[str, Any]:
    """What an exit costs the host beside its graph, us: graphs that return at once, one image, nobody leaves.

    ``decide``: the policy, from the signals to the branch. ``go on``: the call and the hand-over to the next graph.
    """

    def nothing(segment: Segment) -> Graph:
        outputs = [np.zeros((1, *map(int, tensor.shape[1:])), tensor.dtype) for tensor in segment.outputs]
        return lambda _: list(outputs)

    right = np.random.default_rng(0).random((len(signals), len(signals[0]["max_prob"]))) < 0.7
    kinds = {name: policy_class(name) for name in registry.names(ROOM) if name != "patience"}
    image = np.zeros((1, *map(int, artifact.manifest.inputs[0].shape[1:])), np.float32)
    calls: dict[str, Callable[[Any], Any]] = {}
    for name, kind in kinds.items():
        policy = policy_of((2.0,) * 3, name=name, parameters=kind.fit(signals, right).parameters, stage_ms=(1.0,) * 4)
        network = array_cascade(
            Artifact(artifact.path, artifact.manifest.model_copy(update={"policy": policy})), nothing
        )
        calls[name] = network
    calls["forced"] = partial(network.forced, exit=-1)
    calls["forced to the first exit"] = partial(network.forced, exit=0)
    took = calls_in_turn(calls, [image], rounds=SETTINGS["mean"]["rounds"], seconds=0.02)
    us = {name: 1e3 * float(np.median(np.concatenate(found))) for name, found in took.items()}
    passed = len(signals) - 1
    return {
        "go on": round((us["forced"] - us["forced to the first exit"]) / passed, 2),
        "decide": {name: round((us[name] - us["forced"]) / passed, 2) for name in kinds},
        "target": 10.0,
    }


def in_batches(artifact: Artifact, pool: Inputs, sizes: Sequence[int], times: Any) -> dict[str, Any]:
    """Throughput against the sum of bare sessions at the very row counts, and against nobody leaving."""
    plain, floor, found = opened(artifact, None), Floor(artifact), {}
    mixes = {**MIXES, "1 row leaves": None, "nobody leaves": None}
    for name, mix in mixes.items():
        for size in sizes:
            wished = mix or ((1 / size, 0.0, 0.0, 1 - 1 / size) if name == "1 row leaves" else (0.0, 0.0, 0.0, 1.0))
            thresholds = thresholds_for(plain, pool, mix or (0.25,) * 4)
            network = opened(artifact, policy_of(thresholds, stage_ms=(1.0,) * 4, stage_times=times))
            left = network(pool).exit_index
            batches = [pool[drawn(left, size, wished, seed)] for seed in range(4)]
            floors = {id(batch): floor.calls(batch, network(batch).exit_index) for batch in batches}
            took = calls_in_turn(
                {
                    "cascade": network,
                    "floor": lambda batch, floors=floors: run_all(floors[id(batch)]),
                    "nobody": plain,
                },
                batches,
                **SETTINGS["batch"],
            )
            found[f"{name}, batch {size}"] = {
                "ms": {key: round(float(np.median(np.concatenate(value))), 3) for key, value in took.items()},
                "floor / cascade (throughput)": _at_least(ratio_of_medians(took["floor"], took["cascade"]), 0.92),
                "cascade / no exit": against(ratio_of_medians(took["cascade"], took["nobody"]), 1.02),
            }
            print(name, size, found[f"{name}, batch {size}"], flush=True)
    return found


def _at_least(ratio: Any, target: float) -> dict[str, Any]:
    verdict = "kept" if ratio.low >= target else "missed" if ratio.high < target else "not decided"
    return {**against(ratio, None), "target": target, "verdict": verdict}


SETTINGS: dict[str, dict[str, Any]] = {}


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__)
    read.add_argument("--model", default="resnet18")
    read.add_argument("--rounds", type=int, default=20)
    read.add_argument("--seconds", type=float, default=0.25, help="of one turn")
    read.add_argument("--sizes", type=int, nargs="+", default=[8, 16, 32, 64])
    given = read.parse_args()
    SETTINGS["mean"] = {"rounds": given.rounds, "seconds": given.seconds}
    SETTINGS["batch"] = {"rounds": max(5, given.rounds // 2), "seconds": given.seconds}
    record = Record()
    with tempfile.TemporaryDirectory() as folder:
        cascade, singles = artifacts(given.model, Path(folder))
        artifact = open_artifact(cascade)
        images = np.random.default_rng(0).integers(0, 256, (POOL, *artifact.golden().examples.shape[1:]), np.uint8)
        plain = opened(artifact, None)
        pool = plain.preprocess(images)
        times = stage_times(plain, artifact.manifest, ArraySamples(images, np.zeros(POOL, np.int64)))
        figures = {
            "stage_times": times.model_dump(),
            "host work of an exit, us": host_work(artifact, plain.signals(pool)),
            "one at a time": one_at_a_time(artifact, pool, bare(singles[-1] / "model.onnx"), times),
            "in batches": in_batches(artifact, pool, given.sizes, times),
        }
    record.write(figures, threads=1, model=given.model, rounds=given.rounds, seconds=given.seconds)


if __name__ == "__main__":
    main()
