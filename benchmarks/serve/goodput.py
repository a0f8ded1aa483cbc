"""Measure goodput under one bound of the 99th percentile: batches that form anew at every exit beside other ways.

    PYTHONPATH=. python benchmarks/serve/goodput.py
    PYTHONPATH=. python benchmarks/serve/goodput.py --artifact FOLDER --name goodput-NAME

Requests of one row arrive at random times (Poisson). The goodput of a way is the highest rate at which 99 % of all
requests are answered within the bound; a refused one counts as late. It is found by bisection: in simulated time with
the stage times of this machine, then in real time by threads of this process. One thread computes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from batching import ALONE, COMPACTED, HARDEST, NO_EXIT, OURS, ways
from load import Load
from network import inputs_of, write_cascade

sys.path.append(str(Path(__file__).parents[1] / "speed"))
from record import Record

from sdcompress.artifact.golden import Golden
from sdcompress.options import EngineOptions
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.cost_model import CostModel
from sdcompress.runtime.open import open_cascade
from sdcompress.runtime.stepwise import Carried, StageResult
from sdcompress.schema.manifest import StageTimes
from sdcompress.serving.costs import StageCosts
from sdcompress.serving.job import Job
from sdcompress.serving.scheduler import Batch, Scheduler
from sdcompress.serving.simulation import SimulatedClock, answer_times

HERE = Path(__file__).resolve().parent
ROWS, LIMITS = (1, 2, 4, 8, 16, 32), (1, 8, 32)
MIX = (0.5, 0.3, 0.2)
BOUNDS, REAL_BOUND = (3, 10, 30), 10  # in times of a lone request through all stages
REFUSED_S = 1e9
Times = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Samples:
    """What requests send: single rows, how often each, and where each exits."""

    rows: Sequence[Mapping[str, npt.NDArray[Any]]]
    weights: npt.NDArray[np.float64]
    exits: npt.NDArray[np.int64]

    def shares(self, stages: int) -> tuple[float, ...]:
        """Return the share of the requests that exits at each exit."""
        return tuple(float(self.weights[self.exits == stage].sum()) for stage in range(stages))


def samples_of(engine: CascadeEngine, folder: Path) -> Samples:
    """The golden samples of an artifact, weighted so that exits are as frequent as in its calibration."""
    golden = Golden.load(folder / engine.manifest.golden.file, engine.modality)
    inputs = engine.modality.collate(golden.examples).arrays
    exits = engine(dict(inputs)).exit_index
    rows = [{name: array[at : at + 1] for name, array in inputs.items()} for at in range(len(exits))]
    assert engine.policy is not None
    counts = np.bincount(exits, minlength=len(engine.exit_names))
    weights = np.array([engine.policy.shares[exit_] / counts[exit_] for exit_ in exits])
    return Samples(rows, weights / weights.sum(), exits)


def measured_times(engine: CascadeEngine, samples: Samples) -> StageTimes:
    """Milliseconds of every stage and number of rows, the least of five calls."""
    stages, ms = engine.stepwise(), []
    for rows in ROWS:
        inputs = Carried({name: np.repeat(array, rows, axis=0) for name, array in samples.rows[0].items()})
        rounds = []
        for _ in range(5):
            carried, each = inputs, []
            for stage in range(len(stages)):
                start = time.perf_counter()
                carried = stages.run(stage, carried).carried
                each.append(1000 * (time.perf_counter() - start))
            rounds.append(each)
        ms.append(np.min(rounds, axis=0))
    rising = np.maximum.accumulate(np.array(ms).T, axis=1)
    return StageTimes(rows=ROWS, ms=tuple(map(tuple, rising.tolist())), move_ms=(0.0,) * (len(stages) - 1))


class Simulation:
    """The ways in simulated time: an answer comes when the stages of its batch have taken their measured times."""

    def __init__(self, times: StageTimes, shares: Sequence[float]) -> None:
        self._times, self.shares, self.stages = times, np.array(shares) / sum(shares), len(shares)
        self.model = CostModel(None, times=times)
        reached = self.shares[::-1].cumsum()[::-1]
        per_row = [min(ms / rows for ms, rows in zip(stage, ROWS, strict=True)) for stage in times.ms]
        self.peak = 1000 / float(reached @ per_row)  # rows/s if every batch were the best one
        self.lone_s = sum(stage[0] for stage in times.ms) / 1000

    def ways(self) -> dict[str, Callable[[Times, npt.NDArray[np.int64], float], Times]]:
        """Name -> from times of arrival, exits and the bound to the latencies."""

        def seconds(stage: int, rows: int) -> float:
            return self.model.ms(stage, rows) / 1000 if rows else 0.0

        def no_exit(exits: npt.NDArray[np.int64]) -> float:
            return sum(seconds(stage, len(exits)) for stage in range(self.stages))

        def hardest(exits: npt.NDArray[np.int64]) -> float:
            return sum(seconds(stage, len(exits)) for stage in range(int(exits.max()) + 1))

        def compacted(exits: npt.NDArray[np.int64]) -> float:
            return sum(seconds(stage, int((exits >= stage).sum())) for stage in range(self.stages))

        def limited(took: Callable[[Any], float], limit: int) -> Callable[..., Times]:
            return lambda arrivals, exits, _: _whole_batches(arrivals, exits, took, limit)

        named: dict[str, Callable[..., Times]] = {OURS: self._ours}
        for name, took in ((COMPACTED, compacted), (HARDEST, hardest), (NO_EXIT, no_exit)):
            named |= {f"{name}, up to {limit} rows": limited(took, limit) for limit in LIMITS[1:]}
        named |= {f"{NO_EXIT}, up to 1 rows": limited(no_exit, 1), ALONE: limited(hardest, 1)}
        return named

    def goodput(self, name: str, bound: float, requests: int = 2500) -> float:
        """Return the highest rate that a way takes."""
        way = self.ways()[name]

        def kept(rate: float) -> bool:
            rng = np.random.default_rng(0)
            arrivals = rng.exponential(1 / rate, requests).cumsum()
            exits = rng.choice(self.stages, requests, p=self.shares)
            return bool(np.percentile(way(arrivals, exits, bound), 99) <= bound)

        return _bisected(kept, 0.0, 1.1 * self.peak, steps=9)

    def _ours(self, arrivals: Times, exits: npt.NDArray[np.int64], bound: float) -> Times:
        clock, costs = SimulatedClock(), StageCosts(self.model, ROWS, self.shares.tolist())

        def job_of(at: int) -> Job:
            return Job(Carried({"exit": exits[at : at + 1]}), bound=clock.now + bound)

        def run(batch: Batch) -> tuple[StageResult, float]:
            carried = batch.carried()
            left = carried.tensors["exit"] <= batch.stage
            result = StageResult(np.zeros((len(left), 1), np.float32), None, left, carried)
            return result, self.model.ms(batch.stage, len(batch)) / 1000

        scheduler = Scheduler(costs, most_rows=10**6, clock=clock)
        latencies = answer_times(scheduler, clock, arrivals, job_of, run) - arrivals
        return np.where(np.isfinite(latencies), latencies, REFUSED_S)


def _whole_batches(
    arrivals: Times, exits: npt.NDArray[np.int64], took: Callable[[npt.NDArray[np.int64]], float], limit: int
) -> Times:
    latencies, at, now = np.empty(len(arrivals)), 0, 0.0
    while at < len(arrivals):
        now = max(now, float(arrivals[at]))
        end = min(at + limit, int(np.searchsorted(arrivals, now, side="right")))
        now += took(exits[at:end])
        latencies[at:end] = now - arrivals[at:end]
        at = end
    return latencies


def _bisected(kept: Callable[[float], bool], low: float, high: float, steps: int) -> float:
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle) else (low, middle)
    return low


def simulated(simulation: Simulation, bounds: Sequence[float]) -> dict[str, Any]:
    """Goodput of each way under each bound, a multiple of the time of a lone request through all stages."""
    figures = {}
    for bound in bounds:
        rates = {name: round(simulation.goodput(name, bound * simulation.lone_s), 1) for name in simulation.ways()}
        figures[f"{bound:g} times"] = {"bound_ms": round(1000 * bound * simulation.lone_s, 1), **_compared(rates)}
    return figures


def in_real_time(
    engine: CascadeEngine,
    simulation: Simulation,
    samples: Samples,
    *,
    known: Mapping[str, float],
    bound: float,
    seconds: float,
) -> dict[str, Any]:
    """Goodput of each way, bisected around what is known of it; the others batch as many rows as suits them best.

    Args:
        engine: of the cascade.
        simulation: of its stage times.
        samples: to send.
        known: goodput of each way under this bound in simulated time.
        bound: in seconds.
        seconds: of each probe.
    """
    costs = StageCosts(simulation.model, ROWS, simulation.shares.tolist())
    rates = {}
    for name in (OURS, COMPACTED, HARDEST, NO_EXIT, ALONE):
        best = max((each for each in known if each.startswith(name)), key=lambda each: known[each])
        limit = int(best.split()[-2]) if "up to" in best else max(ROWS)
        start = ways(engine, lambda: costs, limit)[name]

        def kept(rate: float, start: Callable[[], Any] = start) -> bool:
            # the median of three, because whatever else the machine does makes requests late
            late = [Load(start(), samples.rows, samples.weights, bound=bound).late(rate, seconds) for _ in range(3)]
            return sorted(late)[1] <= 0.01

        rates[best] = round(_bisected(kept, 0.3 * known[best], 1.1 * known[best], steps=4), 1)
    return {"bound_ms": round(1000 * bound, 1), **_compared(rates)}


def _compared(rates: dict[str, float]) -> dict[str, Any]:
    best = {
        name: max(rate for each, rate in rates.items() if each.startswith(name))
        for name in (COMPACTED, HARDEST, NO_EXIT, ALONE)
    }
    factors = {f"ours / {name}": round(rates[OURS] / rate, 2) if rate else None for name, rate in best.items()}
    return {"requests_per_s": rates, **factors}


def goodput(engine: CascadeEngine, samples: Samples, seconds: float) -> dict[str, Any]:
    """All figures of one cascade; ``seconds`` for each probe in real time."""
    times = measured_times(engine, samples)
    simulation = Simulation(times, samples.shares(len(engine.exit_names)))
    in_simulation = simulated(simulation, BOUNDS)
    known = in_simulation[f"{REAL_BOUND} times"]["requests_per_s"]
    return {
        "shares": [round(share, 3) for share in simulation.shares.tolist()],
        "stage_ms_per_row": [[round(ms / rows, 3) for ms, rows in zip(stage, ROWS, strict=True)] for stage in times.ms],
        "rows": ROWS,
        "lone_request_ms": round(1000 * simulation.lone_s, 2),
        "simulated": in_simulation,
        "in real time": in_real_time(
            engine, simulation, samples, known=known, bound=REAL_BOUND * simulation.lone_s, seconds=seconds
        ),
    }


def synthetic() -> Samples:
    """One input for each exit of ``network.py``, in its mix."""
    rows = [{"input": inputs_of([exit_index], 8)} for exit_index in range(len(MIX))]
    return Samples(rows, np.array(MIX), np.arange(len(MIX)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--artifact", type=Path, help="of a real cascade; its golden samples are sent")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each probe in real time; there are 60 a cascade")
    parser.add_argument("--name", default="", help="of the JSON; default: the script's")
    chosen = parser.parse_args()
    record = Record(HERE, chosen.name)
    options = EngineOptions(threads=1, allow_uncertified=True)
    if chosen.artifact:
        engine = open_cascade(chosen.artifact, options)
        figures = {"artifact": goodput(engine, samples_of(engine, chosen.artifact), chosen.seconds)}
    else:
        with tempfile.TemporaryDirectory() as name:
            kinds = {"batches save nothing": {"convolutions": 2}, "batches save much": {"products": 48}}
            figures = {
                kind: goodput(
                    open_cascade(write_cascade(Path(name) / kind, side=8, **work), options), synthetic(), chosen.seconds
                )
                for kind, work in kinds.items()
            }
    record.write(figures, seconds=chosen.seconds, mix=MIX)


if __name__ == "__main__":
    main()
