"""The cascade: every exit, the host's work, and a mix of exits in batches, against the network without exits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from clocks import in_turn, medians, ratio, wall
from place import NotMeasured, Place, engine, inputs_of, needs_tensorrt

from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.policies import restore, scores
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.engine import Float
from sdcompress.schema.manifest import Policy

MIX = (0.50, 0.20, 0.15, 0.15)
POOL = 1024


def cascade(place: Place, precision: str) -> dict[str, Any]:
    """Forced to the last exit against the single network; the host's work; a mix in batches of 32 against everybody."""
    needs_tensorrt()
    single_path, path = place.built("single", precision), place.built("cascade", precision)
    artifact, whole = open_artifact(path), engine(single_path)
    free, inputs = engine(path), inputs_of(open_artifact(path))
    found: dict[str, Any] = {}
    for rows in (1, 32):
        batch = np.resize(inputs, (rows, *inputs.shape[1:]))
        calls = {"cascade, last exit": wall(partial(free.forced, batch, -1)), "single": wall(partial(whole, batch))}
        times = in_turn(calls)
        found[f"last exit, batch {rows}"] = {
            **medians(times),
            "cascade / single": {**ratio(times, "cascade, last exit", "single", "end_to_end"), "target": 1.06},
        }
    one = inputs[:1]
    ways = {name: wall(partial(free.forced, one, at)) for at, name in enumerate(free.exit_names)}
    times = in_turn({**ways, "single": wall(partial(whole, one))})
    found["forced to each exit, batch 1"] = {
        name: {
            **medians(times)[name],
            "times as fast as the single network": ratio(times, "single", name, "end_to_end"),
        }
        for name in ways
    }
    found["host gate, us"] = gates(artifact, free, inputs)
    found["mix 50/20/15/15, batch 32"] = mix(free, inputs)
    return found


def gates(artifact: Artifact, free: CascadeEngine, inputs: Float) -> dict[str, Any]:
    """What an exit costs beside its kernels: read-back, wait and decision, one image that exits at the last."""
    exits = len(artifact.manifest.exits)
    # the highest threshold at which an exit is asked: above 1 an engine knows that no score reaches it
    asks = free.with_policy(policy_of((1.0,) * (exits - 1), 32))
    image = inputs[:1]
    if asks(image).exit_index[0] != exits - 1:
        return {"each exit": "not measured: the confidence of the first golden image is 1 before the last exit"}
    times = in_turn({"asks": wall(partial(asks, image)), "forced": wall(partial(free.forced, image, -1))})
    made = medians(times)
    gap = made["asks"]["end_to_end_ms"] - made["forced"]["end_to_end_ms"]
    return {"each exit": round(1e3 * gap / (exits - 1), 2), "target": 15.0, **made}


def mix(free: CascadeEngine, inputs: Float) -> dict[str, Any]:
    """Images/s of the cascade, with noisy images so that scores differ, against everybody to the last exit."""
    rng = np.random.default_rng(0)
    pool = np.resize(inputs, (POOL, *inputs.shape[1:])) + rng.normal(size=(POOL, *inputs.shape[1:])).astype(np.float32)
    score = scores(restore("max_prob", {}, free.task), free.signals(pool))
    thresholds = thresholds_for(score, MIX[: len(score)] if len(score) == len(MIX) - 1 else None)
    leaves = free.with_policy(policy_of(thresholds, POOL))
    left = leaves(pool).exit_index
    batches = [pool[drawn(left, 32, seed)] for seed in range(8)]
    state = {"at": 0}

    def turn(call: Callable[[Float], Any]) -> None:
        state["at"] += 1
        call(batches[state["at"] % len(batches)])

    times = in_turn({"mix": wall(partial(turn, leaves)), "everybody": wall(partial(turn, free))})
    return {
        **medians(times),
        "images/s, mix / everybody": {**ratio(times, "everybody", "mix", "end_to_end"), "target": 1.6},
        "shares": [float((leaves(batches[0]).exit_index == exit_).mean()) for exit_ in range(len(score) + 1)],
    }


def thresholds_for(score: Any, wished: Sequence[float] | None) -> tuple[float, ...]:
    """Those at which these shares of the pool leave."""
    if wished is None:
        raise NotMeasured("the mix is of four exits; make the artifacts with --exits 3")
    here, found, rest = np.ones(score.shape[1], bool), [], 1.0
    for exit_, share in enumerate(wished):
        found.append(float(np.quantile(score[exit_, here], 1 - share / rest)))
        here &= score[exit_] < np.float32(found[-1])
        rest -= share
    return tuple(found)


def drawn(left: Any, batch: int, seed: int) -> Any:
    """A batch with the mix, as nearly as whole rows allow, in random order."""
    rng = np.random.default_rng(seed)
    counts = np.diff(np.round(np.cumsum(MIX) * batch).astype(int), prepend=0)
    chosen = [rng.choice(np.flatnonzero(left == exit_), count) for exit_, count in enumerate(counts)]
    return rng.permutation(np.concatenate(chosen))


def policy_of(thresholds: tuple[float, ...], samples: int) -> Policy:
    """A policy with these thresholds; nothing is measured in it, so that rows are always dropped."""
    return Policy(
        thresholds=thresholds, max_drop=1.0, samples=samples, metric=None, reference_metric=None,
        shares=(1.0, *(0.0,) * len(thresholds)), stage_ms=(1.0,) * (len(thresholds) + 1),
    )  # fmt: skip
