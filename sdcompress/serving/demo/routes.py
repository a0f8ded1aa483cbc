"""The paths of the page: the page itself, and what it shows that the protocol does not say."""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64encode
from collections.abc import Awaitable, Callable
from importlib.resources import files
from time import perf_counter
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sdcompress.errors import InputError, SdcompressError, brief
from sdcompress.serving.body import read_body
from sdcompress.serving.demo.describe import Examples, described, picture_of, watched
from sdcompress.serving.model import ServedModel
from sdcompress.serving.protocol.response import HEADER_LENGTH
from sdcompress.serving.service import Service

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["ServerTiming", "demo_routes"]

Refuse = Callable[[SdcompressError], Response]

_FRESH = {"Cache-Control": "no-store"}
_DRAWN_AT_ONCE = 2  # pictures: each may be large once it is decoded


def demo_routes(service: Service, refuse: Refuse) -> list[Route]:
    """Return the routes of the page.

    Args:
        service: whose models it shows.
        refuse: returns the response to an error of a client.
    """
    demo, page = _Demo(service), _page()

    async def root(_: Request) -> Response:
        return page

    def answered(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            try:
                return await endpoint(request)
            except SdcompressError as error:
                return refuse(error)

        return respond

    model = "/demo/models/{model}"
    return [
        Route("/", root, methods=["GET"]),
        Route("/demo/models", answered(demo.models), methods=["GET"]),
        Route(f"{model}/live", answered(demo.live), methods=["GET"]),
        Route(f"{model}/examples", answered(demo.examples), methods=["GET"]),
        Route(f"{model}/examples/{{at}}", answered(demo.example), methods=["GET"]),
        Route(f"{model}/picture", answered(demo.picture), methods=["POST"]),
    ]


class ServerTiming:
    """Tells clients in the header Server-Timing how long the service took, in milliseconds.

    Args:
        app: the application behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        start = perf_counter()

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                ms = 1000 * (perf_counter() - start)
                message["headers"] = [*message["headers"], (b"server-timing", b"total;dur=%.3f" % ms)]
            await send(message)

        await self._app(scope, receive, timed)


class _Demo:
    """The endpoints; each takes any thread but the event loop's for what lasts."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._examples = WeakKeyDictionary[ServedModel, Examples]()  # they go with their version
        self._drawing = asyncio.Semaphore(_DRAWN_AT_ONCE)

    async def models(self, _: Request) -> Response:
        return _json([described(model) for model in self._service.models.values()])

    async def live(self, request: Request) -> Response:
        model = self._model(request)
        ready = model.ready and not self._service.draining
        figures = self._service.metrics.figures(model.name)
        return _json({"version": model.version, "ready": ready, **watched(model), **figures})

    async def examples(self, request: Request) -> Response:
        examples = await self._examples_of(request)
        return _json(await asyncio.to_thread(examples.listed))

    async def example(self, request: Request) -> Response:
        examples, text = await self._examples_of(request), request.path_params["at"]
        at = next((at for at in range(len(examples)) if str(at) == text), None)
        if at is None:
            raise InputError(
                f"There is no example {brief(text)}.", allowed=f"0 to {len(examples) - 1}", next_step="choose another"
            )
        body, length = await asyncio.to_thread(examples.request, at)
        headers = {**_FRESH, HEADER_LENGTH: str(length)}
        return Response(body, headers=headers, media_type="application/octet-stream")

    async def picture(self, request: Request) -> Response:
        model, options = self._model(request), self._service.options
        with self._service.bodies.share() as share:
            headers = dict(request.headers.raw)
            body = await read_body(
                headers, request.receive, share, most_bytes=options.body_bytes, timeout=options.timeout
            )
            async with self._drawing:
                drawn = await asyncio.to_thread(picture_of, model, bytes(body), most_bytes=options.decoded_bytes)
        return Response(drawn, headers=_FRESH, media_type="image/png") if drawn else Response(status_code=204)

    def _model(self, request: Request) -> ServedModel:
        return self._service.model(request.path_params["model"])

    async def _examples_of(self, request: Request) -> Examples:
        model = self._model(request)
        if model not in self._examples:
            self._examples[model] = await asyncio.to_thread(Examples, model)
        return self._examples[model]


def _page() -> Response:
    """Return the page; it runs no code and loads nothing but what it holds itself."""
    html = files("sdcompress.serving.demo").joinpath("page.html").read_bytes()
    style, script = (_source(html, tag) for tag in (b"style", b"script"))
    policy = (
        f"default-src 'none'; style-src {style}; script-src {script}; img-src data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        **_FRESH,
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return Response(html, headers=headers, media_type="text/html")


def _source(html: bytes, tag: bytes) -> str:
    """Return the source expression that allows the one element of this tag by its content."""
    _, _, rest = html.partition(b"<%s>" % tag)
    content, _, _ = rest.partition(b"</%s>" % tag)
    return f"'sha256-{b64encode(hashlib.sha256(content).digest()).decode()}'"


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), headers=_FRESH, media_type="application/json")
