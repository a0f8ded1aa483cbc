"""Run the batches of one scheduler on a thread: ONNX Runtime computes without the interpreter's lock."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from time import perf_counter, time_ns

from sdcompress.errors import ArtifactChangedError, ArtifactError, DeviceError, SdcompressError
from sdcompress.runtime.stepwise import Carried, StageResult, Stepwise
from sdcompress.serving.call import StageRun
from sdcompress.serving.errors import ComputeFailedError, UnavailableError, UncomputableError
from sdcompress.serving.job import Job
from sdcompress.serving.scheduler import Batch, Scheduler

__all__ = ["BatchObserver", "FailureObserver", "Worker"]

_LOG = logging.getLogger(__name__)

BatchObserver = Callable[[int, int, float], None]
"""Called with stage, rows and seconds of every batch."""

FailureObserver = Callable[[str], None]
"""Called with the cause of every failed batch: 'retried', then 'inputs', 'device' or 'bug'."""

_PROBE_EVERY_S = 1.0


class Worker:
    """A thread that runs what a scheduler chooses. Its methods may be called from any thread.

    A request whose stage fails twice gets an error that says who is to blame. Where the message of the backend does not
    name the device, the probe decides: if the network cannot compute inputs any more that it could, the inputs of the
    request are not at fault.

    Args:
        stages: to run.
        scheduler: only this worker calls it from now on.
        name: of the thread.
        probe: inputs that the network can compute.
        observe: called after every batch.
        observe_failure: called after every failed batch.
    """

    def __init__(
        self,
        stages: Stepwise,
        scheduler: Scheduler,
        *,
        name: str,
        probe: Carried,
        observe: BatchObserver = lambda *_: None,
        observe_failure: FailureObserver = lambda _: None,
    ) -> None:
        self._stages, self._scheduler, self._observe = stages, scheduler, observe
        self._probe, self._observe_failure, self._broken = probe, observe_failure, False
        self._lock, self._stopping, self._ended = Lock(), False, False
        # a condition would wake the thread before its lock is free, and so twice
        self._bell, self._waiting = SimpleQueue[None](), False
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def reserve(self, rows: int, *, bound: float, wait_s: float, prepare_s: float) -> None:
        """Accept a request whose inputs are prepared first; see ``Scheduler.reserve``."""
        with self._lock:
            self._scheduler.reserve(rows, bound=bound, wait_s=wait_s, prepare_s=prepare_s)

    def release(self, rows: int) -> None:
        """Forget rows that were reserved."""
        with self._lock:
            self._scheduler.release(rows)

    def submit(self, job: Job, *, reserved: bool = False) -> None:
        """Accept a request; its ``on_end`` is called by the worker's thread.

        Args:
            job: the request.
            reserved: whether its rows were accepted by ``reserve``.

        Raises:
            OverloadedError: see ``Scheduler.submit``.
            UnavailableError: if the thread has ended.
        """
        with self._lock:
            if self._ended:
                raise UnavailableError(
                    "The model has stopped.",
                    allowed="requests to a service that is ready",
                    next_step="send it to another server, or again after the time in Retry-After",
                    retry_after_s=1.0,
                )
            self._scheduler.submit(job, reserved=reserved)
            waiting, self._waiting = self._waiting, False
        if waiting:
            self._bell.put(None)

    def cancel(self, job: Job) -> None:
        """Forget a request."""
        with self._lock:
            self._scheduler.cancel(job)

    def call(self, change: Callable[[], None]) -> None:
        """Call something that changes the scheduler, while nothing else does."""
        with self._lock:
            change()

    @property
    def healthy(self) -> bool:
        """Return whether the thread runs, and the network computed the last probe or batch."""
        return self._thread.is_alive() and not self._broken

    @property
    def rows(self) -> int:
        """Return the rows that wait or run."""
        with self._lock:
            return self._scheduler.rows

    def stop(self) -> None:
        """Finish all accepted requests, and end the thread."""
        with self._lock:
            self._stopping = True
            self._scheduler.close()
        self._bell.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            self._run_batches()
        finally:
            with self._lock:
                self._ended = True

    def _run_batches(self) -> None:
        while (batch := self._next()) is not None:
            start = perf_counter()
            result: StageResult | Exception
            try:
                result = self._stages.run(batch.stage, batch.carried(), outputs=batch.needs_outputs)
                self._broken = False
            except Exception as error:  # noqa: BLE001 - whatever the graph of a user raises ends its requests alone
                result = self._judged(batch, error)
            self._report(batch, result, perf_counter() - start)

    def _next(self) -> Batch | None:
        """Wait for a batch; None: the worker stops, and nothing waits."""
        while True:
            with self._lock:
                batch, ended = self._scheduler.next_batch(), self._scheduler.ended()
                self._waiting = batch is None and not ended
                if self._waiting and self._stopping:
                    self._ended = True
                    return None
            _deliver(ended)
            if batch is not None:
                return batch
            if not ended:
                self._wait()
            if self._broken and not ended:
                self._broken = not self._computes_probe()

    def _wait(self) -> None:
        with contextlib.suppress(Empty):
            self._bell.get(timeout=_PROBE_EVERY_S if self._broken else None)

    def _report(self, batch: Batch, result: StageResult | Exception, seconds: float) -> None:
        _note(batch, seconds)
        with self._lock:
            if isinstance(result, Exception):
                self._scheduler.fail(batch, result)
            else:
                self._scheduler.finish(batch, result, seconds)
            ended = self._scheduler.ended()
        _deliver(ended)
        self._observe(batch.stage, len(batch), seconds)

    def _judged(self, batch: Batch, error: Exception) -> Exception:
        """Return the error for the client of a failed batch, and count it by its cause."""
        cause, judged = "retried", error
        if batch.last_try:
            cause, judged = self._cause(error)
        _LOG.log(
            logging.ERROR if cause == "device" else logging.WARNING,
            "a batch failed",
            extra={"stage": batch.stage, "rows": len(batch), "cause": cause},
            exc_info=error,
        )
        self._observe_failure(cause)
        return judged

    def _cause(self, error: Exception) -> tuple[str, Exception]:
        named = isinstance(error, DeviceError | MemoryError)
        # a head that only some requests need is loaded for the first of them
        changed = isinstance(error, ArtifactChangedError)
        if not named and (changed or not isinstance(error, ArtifactError)):
            return "bug", error
        self._broken = not self._computes_probe()
        judged = _device_failed() if named or self._broken else _uncomputable()
        judged.__cause__ = error
        return "device" if named or self._broken else "inputs", judged

    def _computes_probe(self) -> bool:
        carried = self._probe
        try:
            for stage in range(len(self._stages)):
                carried = self._stages.run(stage, carried, outputs=False).carried
        except Exception as error:  # noqa: BLE001 - as in _run
            _LOG.error("the network does not run", exc_info=error)
            return False
        return True


def _device_failed() -> SdcompressError:
    return ComputeFailedError(
        "The device failed, or has too little memory for this request.",
        allowed="a request that the device can compute now",
        next_step="send it again after the time in Retry-After, to another server, or in smaller parts",
        retry_after_s=_PROBE_EVERY_S,
    )


def _uncomputable() -> SdcompressError:
    return UncomputableError(
        "The network cannot compute these inputs.",
        allowed="inputs in the range of the network, such as indices of its vocabulary",
        next_step="send raw examples, which the model prepares itself",
    )


def _note(batch: Batch, seconds: float) -> None:
    """Note a batch that ends now for the requests that are traced."""
    for part in batch.parts:
        if part.job.runs is not None:
            end = time_ns()
            part.job.runs.append(StageRun(batch.stage, end - int(1e9 * seconds), end, len(part), len(batch)))


def _deliver(ended: list[Job]) -> None:
    for job in ended:
        if isinstance(job.error, MemoryError):  # of its outputs
            _LOG.error("no memory for the outputs of a request", extra={"rows": job.rows}, exc_info=job.error)
            error, job.error = job.error, _device_failed()
            job.error.__cause__ = error
        job.on_end(job)
