"""Run a network before its first request, and measure its stages where the artifact has no times of batches."""

from __future__ import annotations

from time import perf_counter

import numpy as np

from sdcompress.modalities import Inputs
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.cost_model import CostModel, sample_size
from sdcompress.runtime.stepwise import Carried, Stepwise
from sdcompress.schema.manifest import StageTimes
from sdcompress.serving.costs import StageCosts

__all__ = ["usual_inputs", "warm_up"]

_ROWS = (1, 2, 4, 8, 16, 32)
_ROUNDS = 5
_LONGEST_S = 2.0  # of the rounds of one number of rows; larger ones are left out
_LEAST_MS = 1e-3  # the noise of the clock


def warm_up(engine: CascadeEngine, stages: Stepwise, *, most_rows: int) -> StageCosts:
    """Run every stage with the numbers of rows that batches may have, and return the stage times.

    Args:
        engine: of the artifact.
        stages: its stages.
        most_rows: of a batch.

    Raises:
        ArtifactError: if a graph cannot compute the modality's own edge cases.
    """
    cases = list(engine.modality.edge_cases().values())
    widest = engine.modality.collate(np.stack(cases))
    _stage_seconds(stages, Carried(widest.arrays))
    usual = usual_inputs(engine)
    size = sample_size(engine.manifest.inputs, usual)
    policy = engine.policy
    known = policy.stage_times if policy else None
    rows = [count for count in (known.rows if known else _ROWS) if count <= most_rows] or [1]
    seconds: dict[int, list[float]] = {}
    for count in rows:
        if seconds and 2 * (1 + _ROUNDS) * sum(seconds[max(seconds)]) > _LONGEST_S:
            break
        repeated = Carried({name: np.repeat(array, count, axis=0) for name, array in usual.arrays.items()})
        seconds[count] = _stage_seconds(stages, repeated)
    model = CostModel(policy) if known else CostModel(None, times=_times(seconds, size, len(stages)))
    shares = policy.shares if policy else (0.0,) * (len(stages) - 1) + (1.0,)
    costs = StageCosts(model, rows if known else list(seconds), shares)
    costs.calibrate(seconds[rows[0]], rows[0], size)
    return costs


def usual_inputs(engine: CascadeEngine) -> Inputs:
    """Return one row that every intact network of this modality can compute."""
    return engine.modality.collate(np.stack(list(engine.modality.edge_cases().values())[:1]))


def _stage_seconds(stages: Stepwise, inputs: Carried) -> list[float]:
    """Return the least seconds of every stage, with all rows running to the end: what others do then only adds."""
    rounds: list[list[float]] = []
    for _ in range(1 + _ROUNDS):
        carried, seconds = inputs, list[float]()
        for stage in range(len(stages)):
            start = perf_counter()
            carried = stages.run(stage, carried, outputs=False).carried
            seconds.append(perf_counter() - start)
        rounds.append(seconds)
    return [min(each) for each in zip(*rounds[1:], strict=True)]


def _times(seconds: dict[int, list[float]], size: int, stages: int) -> StageTimes:
    ms = 1000 * np.array(list(seconds.values())).T
    rising = np.maximum.accumulate(np.maximum(ms, _LEAST_MS), axis=1)  # no stage takes less time with more rows
    return StageTimes(
        rows=tuple(seconds),
        sizes=() if size == 1 else (float(size),) * len(seconds),
        ms=tuple(tuple(map(float, stage)) for stage in rising),
        move_ms=(0.0,) * (stages - 1),
    )
