"""Run some rows that exited early to the last exit too, when nothing else waits, and hand in how much the exits differ.

Whether a row is audited is drawn when its request comes, and only from requests that the policy alone decides. A row
that is chosen then counts, whatever its answer is: one that took the last exit with a loss of 0. If audits cannot keep
up, no new ones are chosen; none of the chosen is dropped for what it turned out to be. Losses are handed in in the
order of the choice, because deep rows are answered later. A cancelled or failed row counts as 0, so that it can
never raise a false alarm; so does one that would run for too long, behind which all others would wait for ever.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdcompress.policies._base import Float
from sdcompress.runtime.drift import DriftMonitor
from sdcompress.runtime.stepwise import Carried, Rows, StageResult
from sdcompress.serving.in_order import InOrder
from sdcompress.serving.job import Job

__all__ = ["AuditBatch", "Audits", "LossOf"]

_LOG = logging.getLogger(__name__)

LossOf = Callable[[Float, Float], npt.NDArray[np.floating]]
"""Outputs of early exits and of the last exit, [B, ...] each -> losses of the former against the latter, [B]."""

_MOST_OPEN = 64  # rows that are chosen and have no loss yet; their inputs are in memory


@dataclass(eq=False)
class _Chosen:
    """Chosen rows of one request, their losses so far, and how many are missing."""

    level: int
    rows: Rows
    losses: npt.NDArray[np.float64]
    missing: int


@dataclass(frozen=True)
class _Waiting:
    """One row that exited early, to be run again to the last exit."""

    chosen: _Chosen
    position: int  # in chosen.rows
    inputs: Carried
    outputs: Float  # of its exit, [1, ...]
    size: int


@dataclass
class AuditBatch:
    """Rows that run to the last exit together.

    Attributes:
        rows: which ones.
        carried: to the next stage.
        size: of a row.
        stage: the next one.
    """

    rows: tuple[_Waiting, ...]
    carried: Carried
    size: int
    stage: int = 0

    def __len__(self) -> int:
        return len(self.rows)


class Audits:
    """The audits of one model. They compute nothing and hold no lock, as their scheduler does not.

    Args:
        monitor: draws rows, and gets their losses.
        loss_of: computes the losses.
        stages: E.

    Attributes:
        pending: rows that are chosen and have no loss yet.
        failed: rows that could not be compared: the network or the loss does not compute them, or they take too long.
    """

    def __init__(self, monitor: DriftMonitor, loss_of: LossOf, stages: int) -> None:
        self._monitor, self._loss_of, self._stages = monitor, loss_of, stages
        self._answers: dict[Job, _Chosen] = {}  # that are awaited
        self._waiting: deque[_Waiting] = deque()
        self._current: AuditBatch | None = None
        self._losses = InOrder[_Chosen, _Chosen](self._hand_in)
        self.pending = self.failed = 0

    def choose(self, job: Job) -> None:
        """Draw rows of a new request; nothing is drawn while too many audits are behind."""
        rows = np.flatnonzero(self._monitor.choose(job.rows))[: max(0, _MOST_OPEN - self.pending)]
        if len(rows):
            self._answers[job] = chosen = _Chosen(job.level, rows, np.zeros(len(rows)), len(rows))
            self._losses.announce(chosen)
            self.pending += len(rows)

    def answered(self, job: Job) -> None:
        """Take the answers of a request that has finished, has failed or was cancelled."""
        chosen = self._answers.pop(job, None)
        if chosen is None:
            return
        known = job.finished and job.error is None
        early = np.flatnonzero(job.exit_index[chosen.rows] < self._stages - 1).tolist() if known else []
        for position in early:
            row = chosen.rows[position : position + 1]
            outputs = job.outputs[row]
            self._waiting.append(_Waiting(chosen, position, job.inputs.chosen(row), outputs, job.size))
        self._settle(chosen, len(chosen.rows) - len(early))

    def next_batch(self, most_rows: Callable[[int], int]) -> AuditBatch | None:
        """Return the audits to run on with, at the stage that comes next; None: there are none.

        Args:
            most_rows: how many rows of a size may run together.
        """
        while self._current is None and self._waiting:
            first = self._waiting[0]
            most, rows = most_rows(first.size), list[_Waiting]()
            while self._waiting and len(rows) < most and self._waiting[0].inputs.shape == first.inputs.shape:
                rows.append(self._waiting.popleft())
            if not rows:
                self.failed += 1
                self._settle(self._waiting.popleft().chosen, 1)
            else:
                carried = Carried.joined([(one.inputs, np.arange(1)) for one in rows])
                self._current = AuditBatch(tuple(rows), carried, first.size)
        return self._current

    def finish(self, result: StageResult) -> None:
        """Take the result of the current batch at its stage."""
        batch = self._current
        assert batch is not None
        batch.stage, batch.carried = batch.stage + 1, result.carried
        if batch.stage == self._stages:
            assert result.outputs is not None
            early = np.concatenate([one.outputs for one in batch.rows])
            try:
                losses = np.asarray(self._loss_of(early, result.outputs), np.float64)
                if not bool(((losses >= 0) & (losses <= 1)).all()):
                    raise ValueError("a loss is not in [0, 1]")
            except Exception as error:  # noqa: BLE001 - the loss of a user's task ends no thread that answers requests
                _LOG.error("audits cannot be compared", exc_info=error)
                self.fail()
                return
            self._end(batch, losses)

    def fail(self) -> None:
        """Give up the current batch."""
        assert self._current is not None
        self.failed += len(self._current)
        self._end(self._current, np.zeros(len(self._current)))

    def _end(self, batch: AuditBatch, losses: npt.NDArray[np.float64]) -> None:
        self._current = None
        for one, loss in zip(batch.rows, losses.tolist(), strict=True):
            one.chosen.losses[one.position] = loss
            self._settle(one.chosen, 1)

    def _settle(self, chosen: _Chosen, rows: int) -> None:
        chosen.missing -= rows
        if not chosen.missing:
            self._losses.settle(chosen, chosen)

    def _hand_in(self, chosen: _Chosen) -> None:
        self.pending -= len(chosen.rows)
        self._monitor.audited(chosen.losses, chosen.level)
