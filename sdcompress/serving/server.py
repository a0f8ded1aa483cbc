"""The server: uvicorn, and gRPC in its event loop, which drain when they are told to stop."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Thread
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, cast

import uvicorn

from sdcompress.errors import SetupError
from sdcompress.serving.app import create_app
from sdcompress.serving.connection import BoundedConnection, close_slow, most_connections
from sdcompress.serving.security import Security
from sdcompress.serving.service import Service

if TYPE_CHECKING:
    from sdcompress.serving.grpc.server import GrpcServer

__all__ = ["DrainingServer", "listening"]

_LOG = logging.getLogger(__name__)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_RELOAD: int | None = getattr(signal, "SIGHUP", None)  # Windows has none
_TICKS = 5  # of 0.1 s, between looks for slow clients
_KEEP_ALIVE_S = 75  # longer than load balancers keep idle connections, so that they never use one that just closed
_OPEN = Security()


class DrainingServer(uvicorn.Server):
    """A server that on SIGTERM or SIGINT loses no accepted request.

    First the service says that it is not ready, and still answers, so that load balancers can take it out. After the
    drain delay the port is closed, and new requests on open connections are refused. It ends once all accepted requests
    are answered. A second signal ends it at once. SIGHUP loads all models again from their folders.

    Args:
        service: whose requests it takes.
        security: its keys and certificates.
    """

    def __init__(self, service: Service, security: Security = _OPEN) -> None:
        options = service.options
        self._security = security
        self._service, self._close_at = service, math.inf
        self._signal: int | None = None  # that is to be logged
        self._grpc: GrpcServer | None = None
        self._reload = False
        connection = partial(BoundedConnection, patience=options.timeout, most=most_connections(options.connections))
        super().__init__(
            uvicorn.Config(
                create_app(service, security.keys),
                host=options.host,
                port=options.port,
                http=cast("type[asyncio.Protocol]", connection),
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # nobody asks for the client's address
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=max(1, round(options.drain_timeout)),
                **(security.tls.for_uvicorn() if security.tls else {}),
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals while the server runs; unlike uvicorn's, end as after any other stop: code 0."""
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        if _RELOAD is not None:
            before[_RELOAD] = signal.signal(_RELOAD, self.handle_reload)  # type: ignore[index]
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; at the second signal end at once."""
        del frame
        if self._service.draining:
            self.should_exit = self.force_exit = True
            return
        # no log here: a signal may arrive within the write of a log line, and a second write in it raises
        self._service.draining, self._signal = True, sig
        self._close_at = monotonic() + self._service.options.drain_delay

    def handle_reload(self, sig: int, frame: FrameType | None) -> None:
        """Load all models again, soon."""
        del sig, frame
        self._reload = True

    async def on_tick(self, counter: int) -> bool:
        """Close the service when its time has come, or when a model cannot be warmed up."""
        if self._signal is not None:
            _LOG.info("draining", extra={"signal": signal.Signals(self._signal).name})
            self._signal = None
        if self._service.failure is not None or monotonic() >= self._close_at:
            self._service.draining = self._service.closed = self.should_exit = True
        if self._reload:
            self._reload = False
            _LOG.info("loading all models again")
            Thread(target=self._service.repository.load_all, name="load", daemon=True).start()
        if counter % _TICKS == 0:
            close_slow(self.server_state.connections)
        if self._grpc is not None:
            await self._grpc.tick()
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; the models begin to warm up.

        Raises:
            SetupError: if nothing can listen on the port of gRPC.
        """
        options = self._service.options
        if options.grpc_port is not None:
            from sdcompress.serving.grpc.server import GrpcServer

            self._grpc = GrpcServer(self._service, self._security)
            with listening(options.host, options.grpc_port):
                port = await self._grpc.start(options.host, options.grpc_port)
            _LOG.info("listening for gRPC", extra={"address": f"{options.host}:{port}"})
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for the accepted requests: those of gRPC first, while those of HTTP run on."""
        if self._grpc is not None:
            start, grace = monotonic(), self._service.options.drain_timeout
            await self._grpc.stop(grace, lambda: self.force_exit)
            self.config.timeout_graceful_shutdown = max(1, round(grace - (monotonic() - start)))
        await super().shutdown(sockets)


@contextmanager
def listening(host: str, port: int) -> Iterator[None]:
    """Say which address it was if nothing can listen there.

    Raises:
        SetupError: if so.
    """
    try:
        yield
    except (OSError, OverflowError) as error:
        raise SetupError(
            f"Nothing can listen on {host}, port {port}: {error}.",
            allowed="an address of this machine and a free port; 0 chooses one",
            next_step="choose another with --port, --grpc-port, --metrics-port, --control-port or --host",
        ) from error
