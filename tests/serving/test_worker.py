"""The thread that runs batches outlives whatever one request needs."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any

import numpy as np

from sdcompress.runtime.cost_model import CostModel
from sdcompress.runtime.stepwise import Carried, StageResult
from sdcompress.schema.manifest import StageTimes
from sdcompress.serving.costs import StageCosts
from sdcompress.serving.errors import ComputeFailedError
from sdcompress.serving.job import Job
from sdcompress.serving.scheduler import Scheduler
from sdcompress.serving.worker import Worker

TIMES = StageTimes(rows=(1, 2), ms=((1.0, 1.0),), move_ms=())
TWO_STAGES = StageTimes(rows=(1, 4), ms=((1.0, 1.0), (1.0, 1.0)), move_ms=(0.0,))
TOO_MANY = 2**50  # outputs of 4 PB a row


class OneStage:
    """A network of one exit, whose outputs are too large for any memory if there are several rows of a request."""

    def __len__(self) -> int:
        return 1

    def run(self, exit_index: int, carried: Carried, *, outputs: bool = True) -> StageResult:
        del exit_index, outputs
        rows = len(carried)
        size = TOO_MANY if rows > 1 else 3
        return StageResult(np.broadcast_to(np.float32(7), (rows, size)), None, np.ones(rows, bool), carried)


def test_a_request_whose_outputs_do_not_fit_in_memory_fails_alone() -> None:
    scheduler = Scheduler(StageCosts(CostModel(None, times=TIMES), (1, 2), (1.0,)), most_rows=9, clock=lambda: 0.0)
    ended = SimpleQueue[Job]()
    stages: Any = OneStage()
    worker = Worker(stages, scheduler, name="test", probe=Carried({"x": np.zeros((1, 1))}))
    worker.start()
    try:
        answers = []
        for rows in (2, 1):
            worker.submit(Job(Carried({"x": np.zeros((rows, 1), np.float32)}), bound=9.0, on_end=ended.put))
            answers.append(ended.get(timeout=20))
        assert isinstance(answers[0].error, ComputeFailedError)
        assert isinstance(answers[0].error.__cause__, MemoryError)
        assert (answers[1].error, answers[1].outputs.tolist()) == (None, [[7.0] * 3])
        assert worker.healthy
        assert worker.rows == 0
    finally:
        worker.stop()


class TwoStages:
    """A network of two exits; what the second needs of the rows that go on is too large for any memory."""

    def __len__(self) -> int:
        return 2

    def run(self, exit_index: int, carried: Carried, *, outputs: bool = True) -> StageResult:
        del outputs
        values = carried.tensors["x"][:, 0]
        kept = Carried({"x": np.broadcast_to(values[:1, None], (len(values), TOO_MANY))})
        return StageResult(np.zeros((len(values), 3), np.float32), None, values <= exit_index, kept)


def test_rows_that_do_not_fit_in_memory_on_their_way_to_the_next_stage_end_no_worker() -> None:
    costs = StageCosts(CostModel(None, times=TWO_STAGES), (1, 4), (0.5, 0.5))
    scheduler, ended = Scheduler(costs, most_rows=9, clock=lambda: 0.0), SimpleQueue[Job]()
    stages: Any = TwoStages()
    worker = Worker(stages, scheduler, name="test", probe=Carried({"x": np.zeros((1, 1))}))
    worker.start()
    try:
        answers = []
        for values in ([1, 0, 0, 0], [0]):
            worker.submit(Job(Carried({"x": np.array(values)[:, None]}), bound=9.0, on_end=ended.put))
            answers.append(ended.get(timeout=20))
        assert isinstance(answers[0].error, ComputeFailedError)
        assert answers[1].error is None
        assert worker.healthy
    finally:
        worker.stop()
