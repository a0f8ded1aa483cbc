"""The HTTP server: uvicorn, which drains when it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from time import monotonic
from types import FrameType
from typing import cast

import uvicorn

from sdcompress.serving.app import create_app
from sdcompress.serving.connection import BoundedConnection, close_slow, most_connections
from sdcompress.serving.service import Service

__all__ = ["DrainingServer"]

_LOG = logging.getLogger(__name__)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TICKS = 5  # of 0.1 s, between looks for slow clients
_KEEP_ALIVE_S = 75  # longer than load balancers keep idle connections, so that they never use one that just closed


class DrainingServer(uvicorn.Server):
    """A server that on SIGTERM or SIGINT loses no accepted request.

    First the service says that it is not ready, and still answers, so that load balancers can take it out. After the
    drain delay the port is closed, and new requests on open connections are refused. It ends once all accepted requests
    are answered. A second signal ends it at once.

    Args:
        service: whose requests it takes.
    """

    def __init__(self, service: Service) -> None:
        options = service.options
        self._service, self._close_at = service, math.inf
        self._signal: int | None = None  # that is to be logged
        connection = partial(BoundedConnection, patience=options.timeout, most=most_connections())
        super().__init__(
            uvicorn.Config(
                create_app(service),
                host=options.host,
                port=options.port,
                http=cast("type[asyncio.Protocol]", connection),
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=max(1, round(options.drain_timeout)),
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals while the server runs; unlike uvicorn's, end as after any other stop: code 0."""
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
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

    async def on_tick(self, counter: int) -> bool:
        """Close the service when its time has come, or when a model cannot be warmed up."""
        if self._signal is not None:
            _LOG.info("draining", extra={"signal": signal.Signals(self._signal).name})
            self._signal = None
        if self._service.failure is not None or monotonic() >= self._close_at:
            self._service.draining = self._service.closed = self.should_exit = True
        if counter % _TICKS == 0:
            close_slow(self.server_state.connections)
        return await super().on_tick(counter)
