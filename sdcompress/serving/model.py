"""Serve one artifact: its engine, its queue, and the thread that runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Condition
from time import monotonic, sleep
from typing import Any, Literal

import numpy as np

from sdcompress.errors import UsageError
from sdcompress.modalities import Inputs
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.cost_model import sample_size
from sdcompress.runtime.stepwise import Carried
from sdcompress.schema.manifest import Manifest
from sdcompress.serving.call import Call
from sdcompress.serving.errors import TimedOutError, UnavailableError, UncomputableError
from sdcompress.serving.infer_options import InferOptions
from sdcompress.serving.inputs import RAW, InputReader
from sdcompress.serving.job import NO_SCORE, Job
from sdcompress.serving.metrics import Metrics, ModelMetrics
from sdcompress.serving.options import ServiceOptions
from sdcompress.serving.outputs import served_outputs
from sdcompress.serving.preparing import Preparing, PreparingTime
from sdcompress.serving.protocol.tensors import Tensor
from sdcompress.serving.warm_up import usual_inputs, warm_up
from sdcompress.serving.watch import Watch
from sdcompress.serving.worker import Worker
from sdcompress.tasks import Prediction

__all__ = ["ServedModel", "version_of"]

_DIGITS = 12  # of a digest, which name a version
_GRACE_S = 0.1


class ServedModel:
    """An artifact under a name. It answers once ``warm_up`` has run.

    Args:
        name: in URLs and metrics.
        engine: of the artifact.
        options: of the service.
        metrics: of the service.
        preparing: threads for raw examples.

    Raises:
        UsageError: if the engine's backend does not offer its stages one by one.
    """

    def __init__(
        self, name: str, engine: CascadeEngine, options: ServiceOptions, metrics: Metrics, preparing: Preparing
    ) -> None:
        self.name, self.engine, self._options = name, engine, options
        self._preparing, self._preparing_time = preparing, PreparingTime()
        self.manifest: Manifest = engine.manifest
        self.version = version_of(self.manifest)
        self.exits, self._temperatures = engine.exit_names, tuple(exit_.temperature for exit_ in self.manifest.exits)
        self.reader = InputReader(engine.modality, most_rows=options.request_rows, decoded_bytes=options.decoded_bytes)
        self.outputs = {output.name: output for output in served_outputs(engine.task)}
        self._metrics = metrics
        self.metrics = ModelMetrics(metrics, name, self.exits)
        self.watch = Watch(name, engine, options)
        levels = self.watch.levels if options.brown_out else ()
        self._stages = engine.stepwise([level.thresholds for level in levels])
        self.versions: Callable[[], list[str]] = lambda: [self.version]
        self._worker: Worker | None = None
        self._users, self._unused = 0, Condition()

    @property
    def ready(self) -> bool:
        """Return whether requests are answered."""
        return self._worker is not None and self._worker.healthy

    def warm_up(self) -> None:
        """Run the network, measure it where needed, and start the worker.

        Raises:
            ArtifactError: if the network cannot compute the modality's own edge cases.
        """
        options = self._options
        self.reader.warm_up()
        costs = warm_up(self.engine, self._stages, most_rows=options.batch_rows)
        worker = Worker(
            self._stages,
            self.watch.schedule(costs),
            name=f"sdcompress {self.name}",
            probe=Carried(usual_inputs(self.engine).arrays),
            observe=self.metrics.batch,
            observe_failure=self.metrics.batch_failed,
        )
        worker.start()
        self._worker = worker

    def describe(self) -> None:
        """Say in the metrics that this version serves."""
        self.metrics.describe(
            artifact=self.manifest.digest,
            certificate=self.watch.certificate or "",
            policy=self.manifest.policy.name if self.manifest.policy else "",
        )
        self._metrics.watches.add(self.name, self.watch)

    @property
    def rows(self) -> int:
        """Return the rows that wait, run or are prepared."""
        return self._worker.rows if self._worker is not None else 0

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the model from being retired until the block ends; a request enters before its body is read."""
        with self._unused:
            self._users += 1
        try:
            yield
        finally:
            with self._unused:
                self._users -= 1
                self._unused.notify_all()

    def retire(self) -> None:
        """Stop the model once no request uses it; new requests must not find it any more."""
        sleep(_GRACE_S)  # for a request that has just looked it up, and is about to enter ``in_use``
        with self._unused:
            self._unused.wait_for(lambda: self._users == 0)
        self.stop()
        self._metrics.watches.remove(self.name, self.watch)

    def stop(self) -> None:
        """Finish all accepted requests."""
        if self._worker is not None:
            self._worker.stop()

    def reset_drift(self) -> None:
        """End a fall-back because of drift, and forget the evidence for it; a new lifetime of the tests begins.

        Raises:
            UsageError: if nobody looks for drift.
            UnavailableError: if the model is not ready.
        """
        if self.watch.monitor is None:
            raise UsageError(
                f"Nobody looks for drift of '{self.name}'.",
                allowed="models with a certificate that covers what runs, unless --on-drift is ignore",
                next_step="calibrate it with --confidence 95%",
            )
        self._started().call(self.watch.reset)

    def metadata(self) -> dict[str, Any]:
        """Return what the protocol says of a model."""
        outputs = [
            {"name": output.name, "datatype": output.datatype, "shape": [-1, *output.shape]}
            for output in self.outputs.values()
        ]
        return {
            "name": self.name,
            "versions": self.versions(),
            "platform": "onnx_onnxv1",
            "inputs": self.reader.metadata(),
            "outputs": outputs,
        }

    async def infer(self, tensors: Mapping[str, Tensor], options: InferOptions, call: Call) -> Job:
        """Return the finished job of a request; what is cancelled or given up leaves the queue.

        Args:
            tensors: of the request, by name.
            options: of the request.
            call: how the request came in.

        Raises:
            InputError: if the tensors cannot be used.
            OverloadedError: if the queue does not take it.
            UnavailableError: if the model is not ready.
            TimedOutError: if the request took too long.
            UncomputableError: if the network cannot compute it.
            ComputeFailedError: if the device failed.
        """
        if not self.reader.is_raw(tensors):
            return await self.run(self.reader.read(tensors), options, call)
        inputs = await self._prepared(tensors, call)
        return await self.run(inputs, options, call, reserved=True)

    async def _prepared(self, tensors: Mapping[str, Tensor], call: Call) -> Inputs:
        """Return the inputs of raw examples; their rows are reserved then."""
        worker, preparing, time = self._started(), self._preparing, self._preparing_time
        raw = tensors[RAW]
        rows, bound = raw.shape[0], call.arrived + self._options.latency_bound
        worker.reserve(rows, bound=min(bound, call.until), wait_s=preparing.wait_s, prepare_s=time.predicted(raw))
        future = asyncio.wrap_future(preparing.submit(lambda: self.reader.read(tensors), raw, time))
        try:
            await asyncio.wait((future, call.gone), timeout=self._time_left(call), return_when=asyncio.FIRST_COMPLETED)
            if future.done():
                return future.result()
            if call.gone.done():
                call.gone.result()
            raise self._too_late()
        except BaseException:
            worker.release(rows)
            raise
        finally:
            future.cancel()

    async def run(self, inputs: Inputs, options: InferOptions, call: Call, *, reserved: bool = False) -> Job:
        """Return the finished job of inputs that are prepared; see ``infer``.

        Args:
            inputs: of the network, checked.
            options: of the request.
            call: how the request came in.
            reserved: whether the queue has accepted its rows.
        """
        worker = self._started()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Job] = loop.create_future()
        deadline = None if options.deadline_ms is None else call.arrived + options.deadline_ms / 1000
        job = Job(
            Carried(inputs.arrays),
            bound=call.arrived + self._options.latency_bound,
            until=call.until,
            deadline=deadline,
            min_exit=options.min_exit,
            max_exit=options.max_exit,
            size=sample_size(self.manifest.inputs, inputs) if self.reader.longest else 1,
            on_end=_to_loop(loop, future),
            covered=options.policy_decides and self.watch.certificate is not None,
        )
        if (trace := call.trace) is not None:
            trace.ends("prepare")
            job.runs = trace.runs
        worker.submit(job, reserved=reserved)
        # callbacks on one future: a task and a wait_for for each would take longer than a small network
        timer = loop.call_later(self._time_left(call), lambda: _fail(future, self._too_late()))
        call.gone.add_done_callback(lambda ended: _fail(future, ended.exception()) if not ended.cancelled() else None)
        try:
            await future
        finally:
            timer.cancel()
            if not job.finished and job.error is None:
                worker.cancel(job)
            if trace is not None:
                trace.ends("run")
        if job.error is not None:
            raise job.error
        decided_by: Literal["policy", "request"] = "policy" if options.policy_decides else "request"
        self.metrics.answered(job, "drift" if job.fallen_back else decided_by)
        return job

    def _time_left(self, call: Call) -> float:
        return max(0.0, call.arrived + self._options.timeout - monotonic())

    def _started(self) -> Worker:
        if self._worker is None:
            raise UnavailableError(
                "The model is not ready yet: it warms up.",
                allowed="requests once GET /v2/health/ready answers 200",
                next_step="send it again after the time in Retry-After",
                retry_after_s=1.0,
            )
        return self._worker

    def _too_late(self) -> TimedOutError:
        return TimedOutError(
            f"There is no answer after {self._options.timeout:g} s.",
            allowed="requests that are answered within that time",
            next_step="send it again after the time in Retry-After, or fewer rows at once",
            retry_after_s=self._options.latency_bound,
        )

    def prediction(self, job: Job) -> Prediction:
        """Return the prediction of a finished job.

        Raises:
            UncomputableError: if the outputs are not finite.
        """
        if not bool(np.isfinite(job.outputs).all()):
            raise UncomputableError(
                "The network's outputs are not finite for these inputs.",
                allowed="inputs as the network was trained on",
                next_step="check their range, or send raw examples, which the model prepares itself",
            )
        return self.engine.task.prediction(job.outputs, job.exit_index, self.exits, self._temperatures)

    def parameters(self, job: Job) -> dict[str, str | float | bool]:
        """Return the parameters of a response: artifact, exit, score, certificate, drift."""
        fields: dict[str, str | float | bool] = {"artifact": self.manifest.digest}
        if job.rows == 1:
            fields["exit"] = self.exits[int(job.exit_index[0])]
            if (score := float(job.scores[0])) != NO_SCORE:
                fields["score"] = score
        if job.cut:
            fields["deadline_reached"] = True
        return fields | self.watch.parameters(job)


def version_of(manifest: Manifest) -> str:
    """Return what an artifact is called as a version of a model."""
    return manifest.digest[:_DIGITS]


def _to_loop(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Job]) -> Callable[[Job], None]:
    def resolve(job: Job) -> None:
        if not future.done():
            future.set_result(job)

    def on_end(job: Job) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(resolve, job)

    return on_end


def _fail(future: asyncio.Future[Job], error: BaseException | None) -> None:
    if error is not None and not future.done():
        future.set_exception(error)
