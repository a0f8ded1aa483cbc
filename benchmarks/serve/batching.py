"""Five ways to serve one cascade from one thread, behind one interface; only the first is ours."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Condition, Thread
from time import monotonic

import numpy as np

from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.stepwise import Carried
from sdcompress.serving.costs import StageCosts
from sdcompress.serving.job import Job
from sdcompress.serving.scheduler import Scheduler
from sdcompress.serving.warm_up import usual_inputs
from sdcompress.serving.worker import Worker

Run = Callable[[CascadeEngine, Carried], tuple[np.ndarray, np.ndarray]]


class WholeBatches:
    """Takes up to so many waiting requests, runs them as one batch, and answers all of them when it ends."""

    def __init__(self, engine: CascadeEngine, run: Run, most_rows: int) -> None:
        self._engine, self._run, self._most_rows = engine, run, most_rows
        self._waiting, self._changed, self._stopping = deque[Job](), Condition(), False
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Accept a request of one row."""
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()

    def stop(self) -> None:
        """Finish what waits, and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._stopping:
                    self._changed.wait()
                if not self._waiting:
                    return
                jobs = [self._waiting.popleft() for _ in range(min(self._most_rows, len(self._waiting)))]
            outputs, exits = self._run(
                self._engine, Carried.joined([(one.inputs, np.arange(one.rows)) for one in jobs])
            )
            for at, job in enumerate(jobs):
                job.record(np.arange(1), outputs[at : at + 1], None, int(exits[at]))
                job.on_end(job)


def until_the_hardest_is_done(engine: CascadeEngine, carried: Carried) -> tuple[np.ndarray, np.ndarray]:
    """Run stage after stage for the whole batch; stop once every row may exit."""
    stages = engine.stepwise()
    exits, outputs = np.full(len(carried), -1), None
    for stage in range(len(stages)):
        result = stages.run(stage, carried)
        outputs = result.outputs.copy() if outputs is None else outputs
        here = result.exits & (exits < 0)
        outputs[here], exits[here], carried = result.outputs[here], stage, result.carried
        if (exits >= 0).all():
            break
    assert outputs is not None
    return outputs, exits


def to_the_end(engine: CascadeEngine, carried: Carried) -> tuple[np.ndarray, np.ndarray]:
    """Run the whole network for every row."""
    prediction = engine.forced(dict(carried.tensors), -1)
    return prediction.outputs, prediction.exit_index


def compacted(engine: CascadeEngine, carried: Carried) -> tuple[np.ndarray, np.ndarray]:
    """Run the engine on the batch: rows exit and the rest is compacted, but nobody joins them."""
    prediction = engine(dict(carried.tensors))
    return prediction.outputs, prediction.exit_index


OURS, COMPACTED, HARDEST, NO_EXIT, ALONE = (
    "batches form anew at every exit",
    "a batch stays together, rows that exit are dropped",
    "a batch leaves when its hardest row is done",
    "no early exit",
    "each request runs alone to its exit",
)


def ways(
    engine: CascadeEngine, costs: Callable[[], StageCosts], most_rows: int
) -> dict[str, Callable[[], WholeBatches | Worker]]:
    """Name -> what starts that way of serving."""

    def scheduled() -> Worker:
        scheduler = Scheduler(costs(), most_rows=10**6, clock=monotonic)
        worker = Worker(engine.stepwise(), scheduler, name="worker", probe=Carried(usual_inputs(engine).arrays))
        worker.start()
        return worker

    return {
        OURS: scheduled,
        COMPACTED: lambda: WholeBatches(engine, compacted, most_rows),
        HARDEST: lambda: WholeBatches(engine, until_the_hardest_is_done, most_rows),
        NO_EXIT: lambda: WholeBatches(engine, to_the_end, most_rows),
        ALONE: lambda: WholeBatches(engine, compacted, 1),
    }
