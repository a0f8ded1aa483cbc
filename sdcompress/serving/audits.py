"""Run some rows that exited early to the last exit too, when nothing else waits, and hand in how much the exits differ.

Whether a row is audited is drawn when its request comes, and only from requests that the policy alone decides. A row
that is chosen then counts, whatever its answer is: one that took the last exit with a loss of 0. If audits cannot keep
up, no new ones are chosen; none of the chosen is dropped for what it turned out to be. Losses are handed in in the
order of the choice, because deep rows are answered later. A cancelled or failed row counts as 0, so that it can
never raise a false alarm.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sdcompress.policies._base import Float
from sdcompress.runtime.drift import DriftMonitor
from sdcompress.runtime.stepwise import Carried, Rows, StageResult
from sdcompress.serving.job import Job

__all__ = ["AuditBatch", "Audits", "LossOf"]

LossOf = Callable[[Float, Float], npt.NDArray[np.floating]]
"""Outputs of early exits and of the last exit, [B, ...] each -> losses of the former against the latter, [B]."""

_MOST_OPEN = 64  # rows that are chosen and have no loss yet; their inputs are in memory


@dataclass(eq=False)
class _Chosen:
    """Chosen rows of one request; ``losses`` is None until they are known."""

    level: int
    rows: Rows
    losses: npt.NDArray[np.float64] | None = None


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
        stage: the next one.
        size: of a row.
    """

    rows: tuple[_Waiting, ...]
    carried: Carried
    size: int
    stage: int = 0

    def __len__(self) -> int:
        return len(self.rows)


@dataclass
class Audits:
    """The audits of one model. They compute nothing and hold no lock, as their scheduler does not.

    Attributes:
        monitor: draws rows, and gets their losses.
        loss_of: computes the losses.
        stages: E.
        current: what runs or waits to run on.
        failed: rows whose audit the network could not compute.
    """

    monitor: DriftMonitor
    loss_of: LossOf
    stages: int
    current: AuditBatch | None = None
    failed: int = 0
    _open: dict[Job, _Chosen] = field(default_factory=dict)  # chosen, and not answered yet
    _ledger: deque[_Chosen] = field(default_factory=deque)  # in the order of the choice
    _waiting: deque[_Waiting] = field(default_factory=deque)

    @property
    def pending(self) -> int:
        """Return the rows that are chosen and have no loss yet."""
        return sum(len(chosen.rows) for chosen in self._ledger)

    def choose(self, job: Job) -> None:
        """Draw rows of a new request; nothing is drawn while too many audits are behind."""
        if self.pending >= _MOST_OPEN:
            return
        rows = np.flatnonzero(self.monitor.choose(job.rows))[: _MOST_OPEN - self.pending]
        if len(rows):
            self._open[job] = chosen = _Chosen(job.level, rows)
            self._ledger.append(chosen)

    def answered(self, job: Job) -> None:
        """Take the answers of a request that has finished or failed."""
        chosen = self._open.pop(job, None)
        if chosen is None:
            return
        early = np.empty(0, np.int64) if job.error else np.flatnonzero(job.exit_index[chosen.rows] < self.stages - 1)
        for position in early.tolist():
            row = chosen.rows[position : position + 1]
            self._waiting.append(_Waiting(chosen, position, job.inputs.chosen(row), job.outputs[row].copy(), job.size))
        if not len(early):
            chosen.losses = np.zeros(len(chosen.rows))
            self._hand_in()

    def cancelled(self, job: Job) -> None:
        """Take a request that its client gave up."""
        if (chosen := self._open.pop(job, None)) is not None:
            chosen.losses = np.zeros(len(chosen.rows))
            self._hand_in()

    def next_batch(self, most_rows: Callable[[int], int]) -> AuditBatch | None:
        """Return the audits to run on with, at the stage that comes next; None: there are none.

        Args:
            most_rows: how many rows of a size may run together.
        """
        if self.current is None and self._waiting:
            first = self._waiting[0]
            most, rows = most_rows(first.size), list[_Waiting]()
            while self._waiting and len(rows) < most and self._waiting[0].inputs.shape == first.inputs.shape:
                rows.append(self._waiting.popleft())
            if rows:
                carried = Carried.joined([(one.inputs, np.arange(1)) for one in rows])
                self.current = AuditBatch(tuple(rows), carried, first.size)
        return self.current

    def finish(self, result: StageResult) -> None:
        """Take the result of the current batch at its stage."""
        batch = self.current
        assert batch is not None
        batch.stage, batch.carried = batch.stage + 1, result.carried
        if batch.stage == self.stages:
            early = np.concatenate([one.outputs for one in batch.rows])
            self._end(batch, np.asarray(self.loss_of(early, result.outputs), np.float64))

    def fail(self) -> None:
        """Give up the current batch."""
        assert self.current is not None
        self.failed += len(self.current)
        self._end(self.current, np.zeros(len(self.current)))

    def _end(self, batch: AuditBatch, losses: npt.NDArray[np.float64]) -> None:
        self.current = None
        for one, loss in zip(batch.rows, losses.tolist(), strict=True):
            # a row of the last exit has the loss 0 from the start
            one.chosen.losses = np.zeros(len(one.chosen.rows)) if one.chosen.losses is None else one.chosen.losses
            one.chosen.losses[one.position] = loss
        self._hand_in()

    def _hand_in(self) -> None:
        undone = {id(one.chosen) for one in self._waiting}
        undone |= {id(one.chosen) for one in self.current.rows} if self.current else set()
        while self._ledger and self._ledger[0].losses is not None and id(self._ledger[0]) not in undone:
            chosen = self._ledger.popleft()
            assert chosen.losses is not None
            self.monitor.audited(chosen.losses, chosen.level)
