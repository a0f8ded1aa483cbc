"""Count and time what a service does, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from sdcompress.serving.job import Job
from sdcompress.serving.watch_metrics import WatchMetrics

__all__ = ["Metrics", "ModelMetrics"]

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
_DECIDED_BY = ("policy", "request", "drift")
_SHARES = (*(tenth / 10 for tenth in range(1, 10)), 0.95, 0.99, 1.0)


class ModelMetrics:
    """The metrics of one model.

    Args:
        metrics: of the service.
        model: its name.
        exits: names of its exits.
    """

    def __init__(self, metrics: Metrics, model: str, exits: Sequence[str]) -> None:
        self._stage_seconds = [metrics.stage_seconds.labels(model, name) for name in exits]
        self._batch_rows = [metrics.batch_rows.labels(model, name) for name in exits]
        self._exits = {by: [metrics.exits.labels(model, name, by) for name in exits] for by in _DECIDED_BY}
        self._scores = [metrics.scores.labels(model, name) for name in exits]
        self._seconds = metrics.request_seconds.labels(model)
        self._metrics, self._model = metrics, model

    def batch(self, stage: int, rows: int, seconds: float) -> None:
        """Count a batch that ran, from the worker's thread."""
        self._stage_seconds[stage].observe(seconds)
        self._batch_rows[stage].observe(rows)

    def answered(self, job: Job, decided_by: Literal["policy", "request", "drift"]) -> None:
        """Count the exits of a finished request, apart if the request or a fall-back narrowed the policy's choice."""
        exits = self._exits[decided_by]
        for exit_index, score in zip(job.exit_index.tolist(), job.scores.tolist(), strict=True):
            exits[exit_index].inc()
            if score >= 0:  # neither NO_SCORE nor NaN, after which a sum would be NaN for ever
                self._scores[exit_index].observe(score)

    def batch_failed(self, cause: str) -> None:
        """Count a batch that failed, from the worker's thread; see ``FailureObserver``."""
        self._metrics.failed_batches.labels(self._model, cause).inc()

    def request(self, outcome: str, seconds: float) -> None:
        """Count a request, however it ended."""
        self._metrics.requests.labels(self._model, outcome).inc()
        if outcome == "ok":
            self._seconds.observe(seconds)

    def describe(self, **facts: str) -> None:
        """Say which artifact the model is."""
        self._metrics.models.labels(self._model).info(facts)


class Metrics:
    """All metrics of one service, in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "sdcompress_requests", "Requests by how they ended", ["model", "outcome"], registry=registry
        )
        self.request_seconds = Histogram(
            "sdcompress_request_seconds", "Time of answered requests", ["model"], buckets=_SECONDS, registry=registry
        )
        self.stage_seconds = Histogram(
            "sdcompress_stage_seconds", "Time of a batch at a stage", ["model", "exit"], buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self.batch_rows = Histogram(
            "sdcompress_batch_rows", "Rows of a batch at a stage", ["model", "exit"], buckets=_ROWS, registry=registry
        )
        self.failed_batches = Counter(
            "sdcompress_failed_batches", "Batches that failed, by their cause", ["model", "cause"], registry=registry
        )
        self.exits = Counter(
            "sdcompress_exits", "Rows by the exit they took", ["model", "exit", "decided_by"], registry=registry
        )
        self.scores = Histogram(
            "sdcompress_exit_score", "Scores of rows at the exit they took", ["model", "exit"], buckets=_SHARES,
            registry=registry,
        )  # fmt: skip
        self.queue = Gauge("sdcompress_queue_rows", "Rows that wait or run", ["model"], registry=registry)
        self.loads = Counter(
            "sdcompress_loads", "Changes of the version that serves, by how they ended", ["model", "outcome"],
            registry=registry,
        )  # fmt: skip
        self.bodies = Gauge("sdcompress_body_bytes", "Bytes of bodies of unanswered requests", registry=registry)
        self.watches = WatchMetrics(registry)
        self.models = Info("sdcompress_model", "What a model is", ["model"], registry=registry)

    def watch_bodies(self, held: Callable[[], float]) -> None:
        """Report the memory of bodies whenever metrics are read."""
        self.bodies.set_function(held)

    def forget(self, model: str) -> None:
        """Say no longer which artifact a model is, once it is unloaded."""
        with suppress(KeyError):
            self.models.remove(model)

    def figures(self, model: str) -> dict[str, Any]:
        """Return what was counted of one model since the start.

        ``exits``: rows by what decided, and by exit. ``requests``: by outcome. ``seconds``: of answered requests, the
        upper ends of the histogram's buckets with the requests up to each. ``queue_rows``: now.
        """
        exits: dict[str, dict[str, int]] = {by: {} for by in _DECIDED_BY}
        requests, seconds, queue = dict[str, int](), list[tuple[float, int]](), 0
        for family in (self.exits, self.requests, self.request_seconds, self.queue):
            for sample in (one for each in family.collect() for one in each.samples):
                labels, value = sample.labels, sample.value
                if labels.get("model") != model:
                    continue
                if sample.name == "sdcompress_exits_total":
                    exits[labels["decided_by"]][labels["exit"]] = int(value)
                elif sample.name == "sdcompress_requests_total":
                    requests[labels["outcome"]] = int(value)
                elif sample.name == "sdcompress_request_seconds_bucket":
                    seconds.append((float(labels["le"]), int(value)))
                elif sample.name == "sdcompress_queue_rows":
                    queue = int(value)
        return {"exits": exits, "requests": requests, "seconds": seconds, "queue_rows": queue}
