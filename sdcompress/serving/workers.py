"""Serve from several processes on one port: a fault that ends one of them costs only the requests that it held.

Each process has its own engines, queue and event loop, and its own share of the threads. The kernel spreads the
connections over them (SO_REUSEPORT). A process takes some once its networks are warm. Whatever ends it, another one
takes its place. The metrics of all are on one port, with the label ``worker``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from threading import Lock, Thread
from time import monotonic, sleep
from types import FrameType
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from sdcompress.errors import SetupError
from sdcompress.serving.logs import log_to_stderr
from sdcompress.serving.metrics_server import MetricsServer
from sdcompress.serving.security import load_security
from sdcompress.serving.server import DrainingServer, listening
from sdcompress.serving.service import Service
from sdcompress.serving.setup import ServiceSetup

if TYPE_CHECKING:
    from sdcompress.serving.security import Tls

__all__ = ["Workers", "shared_port"]

_LOG = logging.getLogger(__name__)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LOOK_EVERY_S = 0.5
_AGAIN_AFTER_S = 1.0  # after the begin of a process that ended before it was ready
_METRICS_WITHIN_S = 2.0
_STARTED_EVERY_S = 0.02


class _Process:
    """One of the processes, as the parent sees it."""

    def __init__(self, number: int, setup: ServiceSetup) -> None:
        self.number, self.ready, self.told, self._lock = number, False, False, Lock()
        self._loads = False  # once it is ready
        context = get_context("spawn")  # a fork would copy locks that threads of the parent hold
        self._connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_work, args=(setup, theirs), name=f"worker {number}")
        self.process.start()
        theirs.close()
        self.begun = monotonic()

    def look(self) -> None:
        """Notice that it takes requests."""
        if not self.ready:
            with contextlib.suppress(EOFError, OSError):
                if self._connection.poll():
                    self._connection.recv_bytes()
                    self.ready = True
                    _LOG.info("worker ready", extra={"worker": self.number, "pid": self.process.pid})
                    if self._loads:
                        self.load()

    def metrics(self) -> str:
        """Return its metrics; nothing if it does not answer."""
        with self._lock, contextlib.suppress(EOFError, OSError):
            if self.ready:
                while self._connection.poll():  # an answer that came too late for those who asked
                    self._connection.recv_bytes()
                self._connection.send_bytes(b"metrics")
                if self._connection.poll(_METRICS_WITHIN_S):
                    return self._connection.recv_bytes().decode()
        return ""

    def load(self) -> None:
        """Let it load its models again; one that starts may have opened those before already."""
        if self.ready:
            self.signal(signal.SIGHUP)
        self._loads = not self.ready

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Tell it to stop, or what the number of another signal says."""
        self.told = self.told or number == signal.SIGTERM
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, number)


class _AllMetrics(Collector):
    """The metrics of all processes, each with its number as the label ``worker``."""

    def __init__(self, processes: list[_Process]) -> None:
        self._processes = processes

    def collect(self) -> Iterator[Metric]:
        """Ask every process."""
        merged: dict[str, Metric] = {}
        for process in [*self._processes]:
            for family in text_string_to_metric_families(process.metrics()):
                whole = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    whole.samples.append(sample._replace(labels={**sample.labels, "worker": str(process.number)}))
        yield from merged.values()


class Workers:
    """Processes that serve one setup until SIGTERM or SIGINT; a second signal ends them at once.

    Args:
        setup: of each.
    """

    def __init__(self, setup: ServiceSetup) -> None:
        self._setup, self._signals, self._processes = setup, 0, list[_Process]()
        self._registry = CollectorRegistry()
        self._restarts = Counter(
            "sdcompress_worker_restarts", "Worker processes that ended and were replaced", registry=self._registry
        )
        self._registry.register(_AllMetrics(self._processes))

    def run(self, tls: Tls | None) -> None:
        """Start the processes, replace those that end, and stop them when told to.

        Args:
            tls: of the metrics; None: no TLS.

        Raises:
            SetupError: if a first process ends before it is ready.
        """
        service, metrics = self._setup.service, None
        if service.metrics_port is not None:
            with listening(service.host, service.metrics_port):
                metrics = MetricsServer(self._registry, service.host, service.metrics_port, tls)
            _LOG.info("metrics", extra={"url": service.url(metrics.server_port, "/metrics")})
        before = {number: signal.signal(number, self._told) for number in _SIGNALS}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._told_to_load)
        try:
            self._processes += [_Process(number, self._setup) for number in range(service.workers)]
            self._watch()
        finally:
            self._stop()
            for number, handler in before.items():
                signal.signal(number, handler)
            if metrics is not None:
                metrics.shutdown()

    def _told(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._signals += 1
        for process in self._processes:
            process.signal()

    def _told_to_load(self, number: int, frame: FrameType | None) -> None:
        """Let every process load its models again."""
        del number, frame
        for process in self._processes:
            process.load()

    def _watch(self) -> None:
        all_ready = False
        while not self._signals:
            wait([each.process.sentinel for each in self._processes if each.process.is_alive()], _LOOK_EVERY_S)
            for at, process in enumerate(self._processes):
                process.look()
                if process.process.is_alive() or self._signals:
                    continue
                code = process.process.exitcode
                if not all_ready and not process.ready:
                    raise SetupError(
                        f"Worker {at} ended with code {code} before it was ready.",
                        next_step="see its log above; try it with one worker",
                    )
                if process.ready or monotonic() > process.begun + _AGAIN_AFTER_S:
                    _LOG.error("a worker ended", extra={"worker": at, "pid": process.process.pid, "code": code})
                    self._restarts.inc()
                    self._processes[at] = _Process(at, self._setup)
            if not all_ready and all(process.ready for process in self._processes):
                all_ready = True
                _LOG.info("all workers ready")

    def _stop(self) -> None:
        for process in self._processes:
            if not process.told:  # a signal may come while a process begins, which it does not reach then
                process.signal()
            process.process.join()


def _work(setup: ServiceSetup, parent: Connection) -> None:
    """Serve in this process, until it is told to stop or its parent has ended."""
    os.setpgrp()  # the terminal's interrupt goes to the parent alone
    log_to_stderr()
    running, service = setup.open(), setup.service
    if service.tracing:
        from sdcompress.serving.tracing import start_tracing

        running.tracing = start_tracing()
    server = DrainingServer(running, load_security(service))
    running.start().join()
    if running.failure is not None:
        raise SystemExit(1)
    Thread(target=_answer_parent, args=(parent, server, running), daemon=True).start()
    with shared_port(service.host, service.port) as listener:
        listener.listen(server.config.backlog)
        server.run(sockets=[listener])
    if running.tracing is not None:
        running.tracing.stop()


def _answer_parent(parent: Connection, server: DrainingServer, running: Service) -> None:
    """Say when the server has started, then give the metrics whenever they are asked for."""
    try:
        while not server.started:
            sleep(_STARTED_EVERY_S)
        parent.send_bytes(b"ready")
        while parent.recv_bytes():
            parent.send_bytes(generate_latest(running.metrics.registry))
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)


def shared_port(host: str, port: int, *, first: bool = False) -> socket.socket:
    """Return a socket that is bound to a port which other processes may bind too, and does not listen yet.

    Args:
        host: address.
        port: 0 chooses a free one.
        first: whether no other process may have the port, as another service with workers would share it.

    Raises:
        SetupError: if nothing can.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with listening(host, port):
        if first and port:
            socket.create_server((host, port), family=family).close()
        bound = socket.socket(family)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
    return bound
