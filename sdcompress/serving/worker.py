"""Run the batches of one scheduler on a thread: ONNX Runtime computes without the interpreter's lock."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Condition, Thread
from time import perf_counter

from sdcompress.runtime.stepwise import StageResult, Stepwise
from sdcompress.serving.job import Job
from sdcompress.serving.scheduler import Batch, Scheduler

__all__ = ["BatchObserver", "Worker"]

_LOG = logging.getLogger(__name__)

BatchObserver = Callable[[int, int, float], None]
"""Called with stage, rows and seconds of every batch."""


class Worker:
    """A thread that runs what a scheduler chooses. Its methods may be called from any thread.

    Args:
        stages: to run.
        scheduler: only this worker calls it from now on.
        name: of the thread.
        observe: called after every batch.
    """

    def __init__(
        self, stages: Stepwise, scheduler: Scheduler, *, name: str, observe: BatchObserver = lambda *_: None
    ) -> None:
        self._stages, self._scheduler, self._observe = stages, scheduler, observe
        self._changed, self._stopping = Condition(), False
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Accept a request; its ``on_end`` is called by the worker's thread.

        Raises:
            OverloadedError: see ``Scheduler.submit``.
        """
        with self._changed:
            self._scheduler.submit(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Forget a request."""
        with self._changed:
            self._scheduler.cancel(job)

    @property
    def alive(self) -> bool:
        """Return whether the thread runs; a fault of this service would end it."""
        return self._thread.is_alive()

    @property
    def rows(self) -> int:
        """Return the rows that wait or run."""
        with self._changed:
            return self._scheduler.rows

    def stop(self) -> None:
        """Finish all accepted requests, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            start = perf_counter()
            result: StageResult | Exception
            try:
                result = self._stages.run(batch.stage, batch.carried())
            except Exception as error:  # noqa: BLE001 - whatever the graph of a user raises ends its requests alone
                _LOG.warning("a batch failed", extra={"stage": batch.stage, "rows": len(batch)}, exc_info=error)
                result = error
            self._report(batch, result, perf_counter() - start)

    def _next(self) -> Batch | None:
        """Wait for a batch; None: the worker stops, and nothing waits."""
        while True:
            with self._changed:
                batch, ended = self._scheduler.next_batch(), self._scheduler.ended()
                if batch is None and not ended:
                    if self._stopping:
                        return None
                    self._changed.wait()
                    continue
            _deliver(ended)
            if batch is not None:
                return batch

    def _report(self, batch: Batch, result: StageResult | Exception, seconds: float) -> None:
        with self._changed:
            if isinstance(result, Exception):
                self._scheduler.fail(batch, result)
            else:
                self._scheduler.finish(batch, result, seconds)
            ended = self._scheduler.ended()
        _deliver(ended)
        self._observe(batch.stage, len(batch), seconds)


def _deliver(ended: list[Job]) -> None:
    for job in ended:
        job.on_end(job)
