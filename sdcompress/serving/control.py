"""Control a running service over HTTP: Triton's model-repository extension, a rollback, and a reset after drift.

It listens on this machine alone, on a port of its own. A request names a model, never a folder: what is loaded comes
from the folder that was given when the service started. Pages in a browser of this machine are kept out: their requests
carry an Origin, or reach it by another host name.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from threading import Thread
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sdcompress.errors import InputError, SdcompressError, UsageError, brief
from sdcompress.serving.errors import NoSuchModelError, TooLargeError, UnavailableError
from sdcompress.serving.repository import Repository

__all__ = ["HOST", "ControlServer", "create_control_app"]

HOST = "127.0.0.1"

_LOG = logging.getLogger(__name__)
_MOST_BYTES = 2**16
_PARAMETERS = {"load": (), "unload": ("unload_dependents",), "rollback": (), "reset_drift": ()}  # of requests
_STATUS: tuple[tuple[type[SdcompressError], int], ...] = (
    (NoSuchModelError, 404),
    (TooLargeError, 413),
    (UsageError, 400),
    (UnavailableError, 503),
    (SdcompressError, 422),  # an artifact that is broken, does not fit, or is not covered by its certificate
)


def create_control_app(repository: Repository) -> Starlette:
    """Return the application that changes which versions serve.

    Args:
        repository: of the service.
    """

    async def index(request: Request) -> Response:
        body = await _body(request)
        listed = repository.index()
        return _json([one for one in listed if one["state"] == "READY"] if body.get("ready") is True else listed)

    def change(verb: str, run: Callable[[str], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            _check_parameters(verb, await _body(request))
            name = request.path_params["model"]
            model = await asyncio.to_thread(run, name)
            return _json({"name": name} if model is None else {"name": name, "version": model.version})

        return _explained(endpoint)

    model = "/v2/repository/models/{model}"
    return Starlette(
        routes=[
            Route("/v2/repository/index", _explained(index), methods=["POST"]),
            Route(f"{model}/load", change("load", repository.load), methods=["POST"]),
            Route(f"{model}/unload", change("unload", repository.unload), methods=["POST"]),
            Route(f"{model}/rollback", change("rollback", repository.roll_back), methods=["POST"]),
            Route(f"{model}/reset_drift", change("reset_drift", repository.reset_drift), methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False)],
    )


def _explained(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Answer errors with what was found, what is allowed and what to do next: whoever asks runs the service."""

    async def explained(request: Request) -> Response:
        if "origin" in request.headers:
            return _json({"error": "Pages in a browser may not control the service."}, 403)
        try:
            return await endpoint(request)
        except SdcompressError as error:
            return _json({"error": str(error)}, next(code for kind, code in _STATUS if isinstance(error, kind)))
        except Exception as error:  # noqa: BLE001 - the version before still serves, and the log says more
            _LOG.error("a change failed", exc_info=error)
            return _json({"error": f"The change failed: {error!r}. The version before still serves."}, 500)

    return explained


async def _body(request: Request) -> dict[str, Any]:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > _MOST_BYTES:
            raise TooLargeError("The body is too large.", allowed=f"{_MOST_BYTES} bytes", next_step="leave it out")
    try:
        body = orjson.loads(content or b"{}")
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise InputError("The body is no JSON object.", allowed="{}, or no body", next_step="leave it out")
    return body


def _check_parameters(verb: str, body: dict[str, Any]) -> None:
    parameters = body.get("parameters", {})
    allowed = _PARAMETERS[verb]
    if not isinstance(parameters, dict) or not parameters.keys() <= {*allowed}:
        raise InputError(
            f"The parameters of '{verb}' are {brief(parameters)}.",
            allowed=", ".join(allowed) or "none: a model is loaded from the folder that the service was started with",
            next_step="leave them out",
        )


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


class ControlServer:
    """Serves the control application on a thread, so that a stop of the service need not wait for its requests.

    Args:
        repository: of the service.
        port: on 127.0.0.1; 0 chooses a free one.

    Raises:
        OSError: if the port is taken.
    """

    def __init__(self, repository: Repository, port: int) -> None:
        self._listener = socket.create_server((HOST, port))
        self.port: int = self._listener.getsockname()[1]
        config = uvicorn.Config(
            create_control_app(repository), log_config=None, access_log=False, server_header=False, lifespan="off"
        )
        config.timeout_graceful_shutdown = 1
        self._server = uvicorn.Server(config)
        arguments = {"sockets": [self._listener]}
        self._thread = Thread(target=self._server.run, kwargs=arguments, name="control", daemon=True)

    def start(self) -> None:
        """Answer requests."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._server.should_exit = True
        self._thread.join()
