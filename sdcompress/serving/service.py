"""Hold the models of a service, and whether it takes requests."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from threading import Thread
from typing import Any

import sdcompress
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.serving.body_memory import BodyMemory
from sdcompress.serving.errors import UnavailableError
from sdcompress.serving.metrics import Metrics
from sdcompress.serving.model import ServedModel
from sdcompress.serving.options import ServiceOptions
from sdcompress.serving.preparing import Preparing
from sdcompress.serving.repository import Repository
from sdcompress.serving.source import Source
from sdcompress.serving.tracing import Tracing

__all__ = ["Service"]

_LOG = logging.getLogger(__name__)


class Service:
    """Several artifacts by name.

    ``draining`` says that it will stop, and so is not ready; ``closed`` that it takes no new request.

    Args:
        engines: name -> engine of an artifact.
        options: of the service.
        previous: name -> engines of versions before it, for a rollback, the latest first.
        sources: name -> where new versions come from.

    Raises:
        UsageError: see ``Repository``.
    """

    def __init__(
        self,
        engines: Mapping[str, CascadeEngine],
        options: ServiceOptions | None = None,
        *,
        previous: Mapping[str, Sequence[CascadeEngine]] | None = None,
        sources: Mapping[str, Source] | None = None,
    ) -> None:
        self.options, self.metrics = options or ServiceOptions(), Metrics()
        self.preparing, self.bodies = Preparing(), BodyMemory(self.options.memory_for_bodies)
        self.metrics.watch_bodies(lambda: float(self.bodies.held))
        versions = {name: (engine, *(previous or {}).get(name, ())) for name, engine in engines.items()}
        self.repository = Repository(versions, sources or {}, self.options, self.metrics, self.preparing)
        self.draining = self.closed = False
        self.tracing: Tracing | None = None
        self.failure: Exception | None = None
        self._warming: Thread | None = None

    @property
    def models(self) -> dict[str, ServedModel]:
        """Return the version of each loaded model that serves, by name."""
        return self.repository.models

    @property
    def ready(self) -> bool:
        """Return whether all models answer requests."""
        return not self.draining and all(model.ready for model in self.models.values())

    def start(self) -> Thread:
        """Warm up all models on a thread of its own, once; until then ``ready`` is false."""
        if self._warming is None:
            self._warming = Thread(target=self._warm_up, name="warm up", daemon=True)
            self._warming.start()
        return self._warming

    def stop(self) -> None:
        """Finish all accepted requests and end the threads."""
        self.draining = self.closed = True
        self.repository.close()
        if self._warming is not None:  # a network that runs while the interpreter ends aborts the process
            self._warming.join()
        self.preparing.stop()
        self.repository.stop()

    def check_open(self) -> None:
        """Refuse new requests once the service is closed.

        Raises:
            UnavailableError: if it is.
        """
        if self.closed:
            raise UnavailableError(
                "The service stops: it finishes what it has accepted.",
                allowed="requests to a service that is ready",
                next_step="send it to another server, or again after the time in Retry-After",
                retry_after_s=self.options.drain_timeout,
            )

    def model(self, name: str, version: str | None = None) -> ServedModel:
        """Return a model by its name: the version that serves, or another one.

        Raises:
            NoSuchModelError: if there is none, it is not loaded, or has no such version in memory.
        """
        return self.repository.model(name, version)

    def metadata(self) -> dict[str, Any]:
        """Return what the protocol says of a server."""
        extensions: Sequence[str] = ("binary_tensor_data",)
        return {"name": "sdcompress", "version": sdcompress.__version__, "extensions": extensions}

    def _warm_up(self) -> None:
        try:
            self.repository.warm_up()
        except Exception as error:  # noqa: BLE001 - handed to whoever started the service
            _LOG.error("a model cannot be warmed up", exc_info=error)
            self.failure = error
