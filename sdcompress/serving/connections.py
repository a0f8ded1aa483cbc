"""Bound the connections of the HTTP server, and end those that stall."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.auto import AutoHTTPProtocol

__all__ = ["StalledConnections", "bounded_protocol"]

_TEXT = b'{"error":"The service has too many connections. Next: send it again after the time in Retry-After."}'
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_TEXT), _TEXT)
)
_LINGER_S = 1.0  # in which a refused client reads the refusal: closing at once, while it sends, would reset it


def bounded_protocol(most: int) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with at most so many connections; a further one gets 503 before it asks.

    uvicorn's own limit (``limit_concurrency``) keeps the connections above it open.

    Args:
        most: connections at once.
    """

    class Bounded(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        _refused = False

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            if len(self.connections) > most:
                self._refused = True
                self.connections.discard(self)
                transport.write(_REFUSAL)
                if transport.can_write_eof():
                    transport.write_eof()
                self.loop.call_later(_LINGER_S, transport.abort)

        def data_received(self, data: bytes) -> None:
            if not self._refused:
                super().data_received(data)

    return Bounded


class StalledConnections:
    """Ends connections whose client neither sends the head of a request nor reads its response.

    uvicorn waits for both for ever; a body that does not arrive is the business of ``read_body``.

    Args:
        timeout: seconds that a client has.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._since: WeakKeyDictionary[Any, float] = WeakKeyDictionary()

    def end(self, connections: Collection[Any], now: float) -> None:
        """End those that have stalled for too long.

        Args:
            connections: protocols of uvicorn.
            now: by a clock in seconds.
        """
        for connection in [*connections]:
            if not _stalls(connection):
                self._since.pop(connection, None)
            elif now - self._since.setdefault(connection, now) > self._timeout:
                connection.transport.abort()


def _stalls(connection: Any) -> bool:
    """Return whether a connection waits for its client, beside one that is idle between two requests."""
    if connection.flow.write_paused:
        return True
    answered = connection.cycle is None or connection.cycle.response_complete
    return answered and connection.timeout_keep_alive_task is None
