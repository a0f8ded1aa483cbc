"""Serve metrics over HTTP on a port of their own, each client on a thread."""

from __future__ import annotations

import logging
import socket
import sys
from socketserver import ThreadingMixIn
from threading import Thread
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

if TYPE_CHECKING:
    from sdcompress.serving.security import Tls

__all__ = ["MetricsServer"]

_LOG = logging.getLogger(__name__)
_PATIENCE_S = 10.0  # in which a client has to send its request, and to read


class MetricsServer(ThreadingMixIn, WSGIServer):
    """A server that answers until ``shutdown``.

    Args:
        registry: of the metrics.
        host: address.
        port: 0 chooses a free one.
        tls: None: no TLS.

    Raises:
        OSError: if the port is taken.
    """

    daemon_threads = True

    def __init__(self, registry: CollectorRegistry, host: str, port: int, tls: Tls | None = None) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)
        self.set_app(make_wsgi_app(registry))
        if tls is not None:
            # a handshake on the thread that accepts would let a client that says nothing keep all others out
            self.socket = tls.context().wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        Thread(target=self.serve_forever, name="metrics", daemon=True).start()

    def shutdown(self) -> None:
        """End the server, and close its port."""
        super().shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log why a client was not answered."""
        del request
        extra = {"client": str(client_address), "error": repr(sys.exc_info()[1])}
        _LOG.warning("a client did not get the metrics", extra=extra)


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE_S

    def log_message(self, *_: Any) -> None:
        """Write no line for a request."""
