"""One connection of a client: uvicorn's, with limits on how slow it is, on its headers, and on how many there are.

uvicorn alone waits forever for the head of a request and for the reader of a response, keeps headers of any size,
takes every connection, and loses the bodies of clients that offer HTTP/2.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterable
from time import monotonic
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

__all__ = ["BoundedConnection", "close_slow", "most_connections"]

_MOST_BESIDE_BODY = 2**16  # bytes of headers, chunk extensions, trailers
_OTHER_FILES = 256  # that a process has open beside its connections
_LINGER_S = 1.0  # in which a refused client reads why: closing at once, while it sends, would reset the connection
_MOST_REFUSED = 64  # beyond the limit at once; more are closed without a word, or they would take all files
_MOST_PIPELINED = 64  # requests that wait for the answers to those before them; each takes far more memory than bytes
_ANSWER_S = 5.0  # in which the service itself answers 408 to a slow body, before the connection is closed


class BoundedConnection(HttpToolsProtocol):
    """A connection that is closed when its client does not go on in time.

    A request starts no timer: ``close_slow`` looks at all connections from time to time.

    Args:
        arguments: of ``HttpToolsProtocol``.
        patience: seconds in which a client has to send the head of a request, then its body, and to read a response.
        most: connections of the server at once.
        options: of ``HttpToolsProtocol``.
    """

    def __init__(self, *arguments: Any, patience: float, most: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._send_by = self._read_by = math.inf  # when the client has to have gone on
        self._patience, self._most = patience, most
        self._in_head = self._in_request = self._refused = self._deaf = False
        self._beside_body = 0  # bytes since the last one of a body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, unless there are too many."""
        super().connection_made(transport)
        self._wait()
        beyond = len(self.connections) - self._most
        if beyond > _MOST_REFUSED:
            self.transport.abort()
        elif beyond > 0:
            self._refuse(503, "There are too many connections. Next: try again later.", b"retry-after: 1\r\n")

    def data_received(self, data: bytes) -> None:
        """Read what the client sent."""
        if self._refused or self._deaf or self.transport.is_closing():
            return
        if not self._in_request and not self._answering:
            self._wait()  # also for bytes that begin no request, such as empty lines
        self._beside_body += len(data)
        self._unset_keepalive_if_required()
        self._feed(data)
        if self._beside_body > _MOST_BESIDE_BODY:
            self._refuse(431, f"The headers are too large. Allowed: {_MOST_BESIDE_BODY} bytes. Next: send fewer.")

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_head = self._in_request = True

    def on_headers_complete(self) -> None:
        """Begin to answer it.

        Raises:
            ValueError: to the parser, if too many others wait.
        """
        if self._upgrades:
            return
        if len(self.pipeline) >= _MOST_PIPELINED:
            raise ValueError
        super().on_headers_complete()
        self._in_head, self._beside_body = False, 0
        self._wait(_ANSWER_S)

    def on_body(self, body: bytes) -> None:
        """Take a part of its body."""
        super().on_body(body)
        self._beside_body = 0

    def on_message_complete(self) -> None:
        """Wait for the service, no more for the client."""
        if self._upgrades:
            return
        super().on_message_complete()
        self._in_request, self._beside_body = False, 0
        self._send_by = math.inf

    def on_response_complete(self) -> None:
        """Wait for the client again if it has begun another request meanwhile."""
        super().on_response_complete()
        if self._in_request:
            self._wait(0.0 if self._in_head else _ANSWER_S)

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._read_by = monotonic() + self._patience

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        super().resume_writing()
        self._read_by = math.inf

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, also if the client did not read its last response."""
        self.transport.abort()

    def close_if_late(self, now: float) -> None:
        """Close the connection if its client did not go on in time."""
        if self._refused or now <= min(self._send_by, self._read_by):
            return
        if self._in_head and not self.transport.is_closing():
            self._refuse(408, f"No request arrived within {self._patience:g} s. Next: send it again.")
        else:
            self.transport.abort()

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._feed(self._without_upgrade() + data[upgrade.args[0] :])
        except httptools.HttpParserError:
            if self._answering and (self._in_head or not self._in_request or self.pipeline):
                self._stop_reading()
            else:
                self.send_400_response("Invalid HTTP request received.")

    def _without_upgrade(self) -> bytes:
        """Return the head of a request without its wish to speak another protocol, for a new parser.

        Java's client wishes for HTTP/2 in each request. The parser takes all that follows for the other protocol, and
        so loses the body.
        """
        line = b"%s %s HTTP/%s\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        headers = [b"%s: %s\r\n" % (name, value) for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        return b"".join((line, *headers, b"\r\n"))

    @property
    def _upgrades(self) -> bool:
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self, more: float = 0.0) -> None:
        self._send_by = monotonic() + self._patience + more

    def _stop_reading(self) -> None:
        """Answer the requests before what is refused now, then close the connection."""
        self._deaf, self.cycle.keep_alive = True, False

    def _refuse(self, status: int, message: str, header: bytes = b"") -> None:
        if self._refused or self.transport.is_closing():
            return
        if self._answering:  # the client would take this for the answer to an earlier request
            if self._in_head:
                self._stop_reading()
            else:
                self.transport.abort()
            return
        body = b'{"error":"%s"}' % message.encode()
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n" % len(body)
        self.transport.write(b"".join((STATUS_LINE[status], head, header, b"\r\n", body)))
        self._refused = True
        if self.transport.can_write_eof():  # not with TLS
            self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.abort)


def close_slow(connections: Iterable[object]) -> None:
    """Close the connections whose clients did not go on in time."""
    now = monotonic()
    for connection in [*connections]:
        if isinstance(connection, BoundedConnection):
            connection.close_if_late(now)


def most_connections(wanted: int) -> int:
    """Return how many connections this process may have; its limit of open files is raised as far as allowed.

    Args:
        wanted: fewer if the limit does not allow so many.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted + _OTHER_FILES:
        return wanted
    raised = wanted + _OTHER_FILES if hard == resource.RLIM_INFINITY else min(wanted + _OTHER_FILES, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft = raised
    return max(1, min(wanted, soft - _OTHER_FILES))
