"""Predict how long stages take on this machine, and choose batch sizes by that."""

from __future__ import annotations

from collections.abc import Sequence

from sdcompress.runtime.cost_model import CostModel

__all__ = ["StageCosts"]

_NEARLY_BEST = 1.01  # a larger batch that saves less than this share of a row's time only adds latency
_PRIOR_ROWS = 100  # so many rows count the exit shares of the calibration
_REMEMBERED_ROWS = 10_000  # then those of before count half: data changes, and admission has to notice
_NEWEST = 0.1  # weight of one measurement
_MOST_RISE = 2.0  # of one measurement over those before it


class StageCosts:
    """Stage times by rows, corrected by what batches take here, and how many rows reach each stage.

    Args:
        model: measured when the artifact was calibrated, or at the start of the service.
        batch_rows: numbers of rows that a batch may have, rising from 1.
        shares: share of the samples that exit at each exit, [E].
    """

    def __init__(self, model: CostModel, batch_rows: Sequence[int], shares: Sequence[float]) -> None:
        self._model, self._batch_rows = model, tuple(batch_rows)
        self.stages = len(shares)
        self.expect(shares)
        self._ratio: float | None = None  # seconds here to those of the model
        self._best: dict[tuple[int, int], tuple[int, float]] = {}  # a few stages and sizes

    def expect(self, shares: Sequence[float]) -> None:
        """Take other exit shares from now on, as after a change of the thresholds; see the class."""
        self._prior = [_PRIOR_ROWS * max(sum(shares[stage:]), 1e-3) for stage in range(self.stages)]
        self._reached = [*self._prior]

    def seconds(self, stage: int, rows: int, size: int = 1) -> float:
        """Return the predicted seconds of one batch at a stage.

        Args:
            stage: index of its exit.
            rows: at least 1.
            size: of a row, see ``runtime.cost_model.sample_size``.
        """
        return self._model.ms(stage, rows, size) / 1000 * (self._ratio or 1.0)

    def most_rows(self, stage: int, size: int = 1) -> int:
        """Return the rows of a full batch: the fewest whose time per row is near the best."""
        return self._best_batch(stage, size)[0]

    def efficiency(self, stage: int, rows: int, size: int = 1) -> float:
        """Return the time per row of the best batch divided by that of a batch of these rows, in (0, 1]."""
        ms = self._model.ms(stage, rows, size)
        return min(1.0, self._best_batch(stage, size)[1] * rows / ms) if ms > 0 else 1.0

    def to_the_end(self, stage: int, rows: int, size: int = 1) -> float:
        """Return the predicted seconds of these rows from a stage to the last exit, in batches of their own."""
        return sum(self._in_own_batches(each, rows, size) for each in range(stage, self.stages))

    def expected_alone(self, rows: int, size: int = 1) -> float:
        """Return the expected seconds of a request, in batches of its own, through the stages that it may need."""
        return sum(
            self._in_own_batches(stage, rows, size) * reached / self._reached[0]
            for stage, reached in enumerate(self._reached)
        )

    def expected(self, stage: int, rows: int, size: int = 1) -> float:
        """Return the expected seconds of these rows from a stage on, in full batches that they share with others."""
        per_row = sum(
            self._best_batch(each, size)[1] * self._reached[each] / self._reached[stage]
            for each in range(stage, self.stages)
        )
        return rows * per_row / 1000 * (self._ratio or 1.0)

    def calibrate(self, seconds: Sequence[float], rows: int, size: int = 1) -> None:
        """Learn how fast this machine is from one batch that ran through all stages.

        Args:
            seconds: of every stage.
            rows: of the batch.
            size: of a row.
        """
        ms = sum(self._model.ms(stage, rows, size) for stage in range(self.stages))
        self._ratio = 1000 * sum(seconds) / ms if ms > 0 else None

    def observe(self, stage: int, rows: int, seconds: float, size: int = 1) -> None:
        """Learn from a batch that ran: how fast this machine is, and how many rows reach a stage."""
        self._reached[stage] += rows
        if self._reached[0] > _REMEMBERED_ROWS:
            self._reached = [(prior + count) / 2 for prior, count in zip(self._prior, self._reached, strict=True)]
        if (ms := self._model.ms(stage, rows, size)) > 0:
            ratio = 1000 * seconds / ms
            # other work may interrupt a batch for longer than it runs, which says nothing of the next one
            usual = self._ratio or ratio
            self._ratio = (1 - _NEWEST) * usual + _NEWEST * min(ratio, _MOST_RISE * usual)

    def _in_own_batches(self, stage: int, rows: int, size: int) -> float:
        whole, rest = divmod(rows, most := self.most_rows(stage, size))
        return whole * self.seconds(stage, most, size) + (self.seconds(stage, rest, size) if rest else 0.0)

    def _best_batch(self, stage: int, size: int) -> tuple[int, float]:
        """Return the rows of a full batch, and the ms of a row in the best one."""
        if (known := self._best.get((stage, size))) is None:
            per_row = {rows: self._model.ms(stage, rows, size) / rows for rows in self._batch_rows}
            least = min(per_row.values())
            rows = next(rows for rows in self._batch_rows if per_row[rows] <= _NEARLY_BEST * least)
            known = self._best[stage, size] = rows, least
        return known
