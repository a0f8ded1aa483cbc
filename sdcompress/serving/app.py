"""The ASGI application: the routes of the protocol, and errors as its clients get them."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sdcompress.errors import SdcompressError, UsageError
from sdcompress.serving.body import SlowBodyError, UnknownEncodingError
from sdcompress.serving.errors import (
    NoSuchModelError,
    OverloadedError,
    TooLargeError,
    UnavailableError,
    UncomputableError,
)
from sdcompress.serving.infer import ClientGone, answer
from sdcompress.serving.model import ServedModel
from sdcompress.serving.openapi import openapi
from sdcompress.serving.service import Service

__all__ = ["create_app"]

_LOG = logging.getLogger(__name__)

# the first class that fits; what is none of these is a fault of the service
_STATUS: tuple[tuple[type[SdcompressError], int], ...] = (
    (NoSuchModelError, 404),
    (SlowBodyError, 408),
    (TooLargeError, 413),
    (UnknownEncodingError, 415),
    (UncomputableError, 422),
    (UnavailableError, 503),
    (OverloadedError, 429),
    (UsageError, 400),
)
_CLIENT_GONE = 499  # as nginx logs it; the response is not read
_OUTCOMES = {200: "ok", 422: "uncomputable", 429: "overloaded", 500: "failed", 503: "unavailable"}


def create_app(service: Service) -> Starlette:
    """Return the application of a service; its models warm up when it starts.

    Args:
        service: answers its requests.
    """
    routes = _Routes(service)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.start()
        yield
        await asyncio.to_thread(service.stop)

    model = "/v2/models/{model}"
    paths: list[tuple[str, Callable[[Request], Awaitable[Response]], str]] = [
        *((one, routes.server, "GET") for one in ("/v2", "/v2/")),
        ("/v2/openapi.json", routes.openapi, "GET"),
        ("/v2/health/live", routes.live, "GET"),
        ("/v2/health/ready", routes.ready, "GET"),
        *((one, routes.model, "GET") for one in (model, f"{model}/versions/{{version}}")),
        *((f"{one}/ready", routes.model_ready, "GET") for one in (model, f"{model}/versions/{{version}}")),
        *((f"{one}/infer", routes.infer, "POST") for one in (model, f"{model}/versions/{{version}}")),
    ]
    application = Starlette(
        routes=[Route(path, endpoint, methods=[method]) for path, endpoint, method in paths],
        exception_handlers={HTTPException: _no_such_route},
        lifespan=lifespan,
    )
    application.router.redirect_slashes = False  # it would send clients to whatever host their request names
    return application


class _Routes:
    """The endpoints."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def server(self, _: Request) -> Response:
        return _json(self._service.metadata())

    async def openapi(self, _: Request) -> Response:
        return _json(openapi())

    async def live(self, _: Request) -> Response:
        return _json({"live": True})

    async def ready(self, _: Request) -> Response:
        return _health({"ready": self._service.ready})

    async def model(self, request: Request) -> Response:
        return self._with_model(request, lambda model: _json(model.metadata()))

    async def model_ready(self, request: Request) -> Response:
        draining = self._service.draining
        return self._with_model(
            request, lambda model: _health({"name": model.name, "ready": model.ready and not draining})
        )

    def _with_model(self, request: Request, respond: Callable[[ServedModel], Response]) -> Response:
        try:
            return respond(self._model(request))
        except NoSuchModelError as error:
            return _refusal(error)

    def _model(self, request: Request) -> ServedModel:
        return self._service.model(request.path_params["model"], request.path_params.get("version"))

    async def infer(self, request: Request) -> Response:
        start, job = perf_counter(), None
        try:
            model = self._model(request)
        except NoSuchModelError as error:
            return _refusal(error)
        try:
            response, job = await answer(self._service, model, request)
        except ClientGone:
            model.metrics.request("cancelled", perf_counter() - start)
            return Response(status_code=_CLIENT_GONE)
        except SdcompressError as error:
            response = _refusal(error)
        except Exception as error:  # noqa: BLE001 - a bug must not show its internals to a client
            _LOG.error("a request failed", exc_info=error)
            response = _internal()
        seconds = perf_counter() - start
        model.metrics.request(_OUTCOMES.get(response.status_code, "invalid"), seconds)
        if self._service.options.log_requests:
            entry: dict[str, Any] = {
                "model": model.name,
                "status": response.status_code,
                "ms": round(1000 * seconds, 3),
            }
            if job is not None:
                entry |= {"rows": job.rows, "exits": [model.exits[at] for at in job.exit_index.tolist()[:16]]}
            _LOG.info("request", extra=entry)
        return response


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, media_type="application/json")


def _health(state: dict[str, Any]) -> Response:
    return _json(state, 200 if state["ready"] else 503)


def _refusal(error: SdcompressError) -> Response:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    if status == 500:
        _LOG.error("a request failed", exc_info=error)
        return _internal()
    headers = {}
    if isinstance(error, OverloadedError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if status == 408:  # the rest of the body is not waited for
        headers["Connection"] = "close"
    return _json(_error(error.problem, error.allowed, error.next_step), status, headers)


def _internal() -> Response:
    return _json(_error("The service failed.", "", "look into its log"), 500)


async def _no_such_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        what = "This path takes another method."
    elif error.status_code == 404:
        what = "There is no such path."
    else:
        what = "The request cannot be handled."
    allowed = "GET /v2, /v2/health/live, /v2/health/ready, /v2/models/NAME, /v2/models/NAME/ready; "
    text = _error(what, f"{allowed}POST /v2/models/NAME/infer", "see the Open Inference Protocol, version 2")
    return _json(text, error.status_code, dict(error.headers or {}))


def _error(problem: str, allowed: str, next_step: str) -> dict[str, str]:
    parts = [problem, f"Allowed: {allowed}." if allowed else "", f"Next: {next_step}." if next_step else ""]
    return {"error": " ".join(part for part in parts if part)}
