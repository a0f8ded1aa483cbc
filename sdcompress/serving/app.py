"""The ASGI application: the routes of the protocol, and errors as its clients get them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import time_ns
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sdcompress.serving.errors import NoSuchModelError
from sdcompress.serving.http_authentication import KeyMiddleware
from sdcompress.serving.http_infer import http_infer
from sdcompress.serving.model import ServedModel
from sdcompress.serving.observed import observed
from sdcompress.serving.openapi import openapi
from sdcompress.serving.refusals import Refusal, refusal_of
from sdcompress.serving.security import ApiKeys
from sdcompress.serving.service import Service

__all__ = ["create_app"]


def create_app(service: Service, keys: ApiKeys | None = None) -> Starlette:
    """Return the application of a service; its models warm up when it starts.

    Args:
        service: answers its requests.
        keys: of which clients send one; None: they need none.
    """
    routes = _Routes(service)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.start()
        yield
        await asyncio.to_thread(service.stop)

    model = "/v2/models/{model}"
    infer = _Infer(service)
    paths: list[tuple[str, _Infer | Callable[[Request], Awaitable[Response]], str]] = [
        # first, because most requests are these: each route before them costs them time
        *((f"{one}/infer", infer, "POST") for one in (model, f"{model}/versions/{{version}}")),
        *((one, routes.server, "GET") for one in ("/v2", "/v2/")),
        ("/v2/openapi.json", routes.openapi, "GET"),
        ("/v2/health/live", routes.live, "GET"),
        ("/v2/health/ready", routes.ready, "GET"),
        *((one, routes.model, "GET") for one in (model, f"{model}/versions/{{version}}")),
        *((f"{one}/ready", routes.model_ready, "GET") for one in (model, f"{model}/versions/{{version}}")),
    ]
    extra, middleware = list[Route](), list[Middleware]()
    if keys is not None:
        middleware.append(Middleware(KeyMiddleware, keys))
    if service.options.demo:
        from sdcompress.serving.demo.routes import ServerTiming, demo_routes  # with Pillow: only who shows it needs it

        extra += demo_routes(service, lambda error: _refused(refusal_of(error)))
        middleware.append(Middleware(ServerTiming))
    application = Starlette(
        routes=[*(Route(path, endpoint, methods=[method]) for path, endpoint, method in paths), *extra],
        middleware=middleware,
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
            return _refused(refusal_of(error))

    def _model(self, request: Request) -> ServedModel:
        return self._service.model(request.path_params["model"], request.path_params.get("version"))


class _Infer:
    """The endpoint of infer requests, in bare ASGI: Starlette's requests cost as much time as a small network."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = scope["path_params"]
        try:
            model = self._service.model(named["model"], named.get("version"))
        except NoSuchModelError as error:
            await _refused(refusal_of(error))(scope, receive, send)
            return
        headers, trace = dict(scope["headers"]), None
        if (tracing := self._service.tracing) is not None:
            texts = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
            trace = tracing.begin("http", model, texts, time_ns())
        work = http_infer(self._service, model, headers, receive, trace)
        answer = await observed(self._service, model, "http", work, trace)
        if isinstance(answer, Refusal):
            await _refused(answer)(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, media_type="application/json")


def _health(state: dict[str, Any]) -> Response:
    return _json(state, 200 if state["ready"] else 503)


def _refused(refusal: Refusal) -> Response:
    headers = {}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(refusal.retry_after_s)))
    if refusal.http == 408:  # the rest of the body is not waited for
        headers["Connection"] = "close"
    return _json({"error": refusal.message}, refusal.http, headers)


async def _no_such_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        what = "This path takes another method."
    elif error.status_code == 404:
        what = "There is no such path."
    else:
        what = "The request cannot be handled."
    allowed = "GET /v2, /v2/health/live, /v2/health/ready, /v2/models/NAME, /v2/models/NAME/ready; "
    text = f"{what} Allowed: {allowed}POST /v2/models/NAME/infer. Next: see the Open Inference Protocol, version 2."
    return _json({"error": text}, error.status_code, dict(error.headers or {}))
