"""Overload with a ladder of certified levels, and without: goodput, latency, and the levels that were used.

    PYTHONPATH=. python benchmarks/serve/brown_out.py

The cascade is of ``network.py``: inputs say where they exit. Here a third of them are undecided: they exit one exit
earlier at the looser level. The real scheduler runs in simulated time, which nothing else on the machine can disturb.
With ``--real-engine`` both ways also take turns on the real worker and engine, with one thread.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from load import Load
from network import inputs_of, write_cascade

sys.path.append(str(Path(__file__).parents[1] / "speed"))
from record import Record

from sdcompress.options import EngineOptions
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.cost_model import CostModel
from sdcompress.runtime.levels import Level
from sdcompress.runtime.open import open_cascade
from sdcompress.runtime.stepwise import Carried, StageResult
from sdcompress.schema.manifest import StageTimes
from sdcompress.serving.brown_out import BrownOut
from sdcompress.serving.costs import StageCosts
from sdcompress.serving.job import Job
from sdcompress.serving.scheduler import Batch
from sdcompress.serving.simulation import SimulatedClock, answer_times
from sdcompress.serving.warm_up import usual_inputs, warm_up
from sdcompress.serving.watched_scheduler import WatchedScheduler
from sdcompress.serving.worker import Worker

HERE = Path(__file__).resolve().parent
# an input of value v scores 0.99 from exit v on; 0.4 and 1.4 score 0.73 at the exit before
VALUES, MIX = (0.0, 0.4, 1.0, 1.4, 2.0), (0.4, 0.15, 0.1, 0.2, 0.15)
LEVELS = (
    Level(0.01, (0.9, 0.9), 5000, (0.4, 0.25, 0.35)),
    Level(0.02, (0.7, 0.7), 5000, (0.55, 0.3, 0.15)),
)
ROUNDS, FACTORS = 3, (0.8, 1.25, 1.5, 3.0)


def simulated(factor: float, *, brown_out: bool, seconds: float = 60.0, bound: float = 0.5) -> dict[str, float]:
    """Return what so many times the peak of the first level gets, where 8 rows take 16 ms at a stage, and one 4 ms."""
    times = StageTimes(rows=(1, 8), ms=((4.0, 16.0),) * 3, move_ms=(0.0, 0.0))
    reached = sum(sum(LEVELS[0].shares[stage:]) for stage in range(3))
    rng, clock, rate = np.random.default_rng(0), SimulatedClock(), factor / (0.002 * reached)
    costs = StageCosts(CostModel(None, times=times), times.rows, LEVELS[0].shares)
    scheduler = WatchedScheduler(
        costs, most_rows=4096, clock=clock, levels=LEVELS, latency_bound=bound,
        brown_out=BrownOut(len(LEVELS), bound) if brown_out else None,
    )  # fmt: skip
    arrivals = np.cumsum(rng.exponential(1 / rate, int(rate * seconds)))
    values = rng.choice(VALUES, len(arrivals), p=MIX)

    def job_of(at: int) -> Job:
        return Job(Carried({"value": np.float32([[values[at]]])}), bound=clock.now + bound, covered=True)

    answered = answer_times(
        scheduler, clock, arrivals, job_of, lambda batch: (_result(batch), costs.seconds(batch.stage, len(batch)))
    )
    took = (answered - arrivals)[np.isfinite(answered)]
    rows = scheduler.answered_rows
    return {
        "good_rows_per_s": round(float((took <= bound).sum()) / seconds, 1),
        "p50_ms": round(1000 * float(np.percentile(took, 50)), 1),
        "p99_ms": round(1000 * float(np.percentile(took, 99)), 1),
        "refused": round(1 - len(took) / int(rate * seconds), 3),
        "share_at_second_level": round(rows[1] / sum(rows), 3),
    }


def _result(batch: Batch) -> StageResult:
    carried = batch.carried()
    ahead = carried.tensors["value"][:, 0] - batch.stage
    scores = np.where(ahead <= 0, 0.99, np.where(ahead < 0.5, 0.73, 0.5)).astype(np.float32)
    last = batch.stage == 2
    return StageResult(carried.tensors["value"], None if last else scores, (scores >= 0.9) | last, carried)


def served(engine: CascadeEngine, load: Load, bound: float, *, brown_out: bool) -> tuple[Worker, WatchedScheduler]:
    """Return a running worker, and its scheduler."""
    stages = engine.stepwise()
    scheduler = WatchedScheduler(
        warm_up(engine, stages, most_rows=32), most_rows=4096, clock=time.monotonic, levels=LEVELS,
        latency_bound=bound, brown_out=BrownOut(len(LEVELS), bound) if brown_out else None,
    )  # fmt: skip
    worker = Worker(stages, scheduler, name="worker", probe=Carried(usual_inputs(engine).arrays))
    worker.start()
    load.server = worker
    return worker, scheduler


def overload(engine: CascadeEngine, factor: float, peak: float, seconds: float, bound: float) -> dict[str, Any]:
    """Send so many times the peak of the first level, in turns with and without the second level."""
    rounds: dict[str, list[dict[str, float]]] = {"refusals alone": [], "brown-out": []}
    inputs = [{"input": inputs_of([value], 8)} for value in VALUES]
    for _ in range(ROUNDS):
        for name, runs in rounds.items():
            load = Load(None, inputs, MIX, bound=bound, covered=True)
            _, scheduler = served(engine, load, bound, brown_out=name == "brown-out")
            figures = load.open(factor * peak, seconds)
            rows = scheduler.answered_rows
            runs.append({**figures, "share_at_second_level": round(rows[1] / max(1, sum(rows)), 3)})
    keys = ("good_rows_per_s", "p50_ms", "p99_ms", "rejects", "share_at_second_level")
    medians = {
        name: {key: round(float(np.median([one.get(key, 0.0) for one in runs])), 3) for key in keys}
        for name, runs in rounds.items()
    }
    ratio = medians["brown-out"]["good_rows_per_s"] / medians["refusals alone"]["good_rows_per_s"]
    return {**medians, "goodput / refusals alone": round(ratio, 3)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=4.0, help="for each run")
    parser.add_argument("--products", type=int, default=96, help="matrices in each stage")
    parser.add_argument("--bound", type=float, default=0.5, help="latency bound in seconds")
    parser.add_argument("--real-engine", action="store_true", help="measure too; needs an idle machine")
    chosen = parser.parse_args()
    record = Record(HERE)
    figures: dict[str, Any] = {
        f"{factor:g} times the peak": {
            name: simulated(factor, brown_out=brown_out)
            for name, brown_out in (("refusals alone", False), ("brown-out", True))
        }
        for factor in FACTORS
    }
    if chosen.real_engine:
        figures["real engine"] = measured(chosen.products, chosen.seconds, chosen.bound)
    record.write(figures, rounds=ROUNDS, mix=dict(zip(map(str, VALUES), MIX, strict=True)),
                 bound_s=chosen.bound, products=chosen.products)  # fmt: skip


def measured(products: int, seconds: float, bound: float) -> dict[str, Any]:
    """Return the peak of the first level, and what happens above and below it."""
    with tempfile.TemporaryDirectory() as name:
        folder = write_cascade(Path(name) / "net", side=8, products=products)
        engine = open_cascade(folder, EngineOptions(threads=1))
        load = Load(None, [{"input": inputs_of([value], 8)} for value in VALUES], MIX, covered=True)
        worker, _ = served(engine, load, 3600.0, brown_out=False)
        peak = load.closed(64, seconds)["rows_per_s"]
        worker.stop()
        runs = {f"{factor:g} times the peak": overload(engine, factor, peak, seconds, bound) for factor in FACTORS}
    return {"peak_rows_per_s": peak, **runs}


if __name__ == "__main__":
    main()
