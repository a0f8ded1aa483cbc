"""Answer one infer request over HTTP: from its body to the body of its response."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic
from typing import Any, NamedTuple

from starlette.types import Receive

from sdcompress.serving.body import read_body
from sdcompress.serving.call import Call
from sdcompress.serving.errors import ClientGone
from sdcompress.serving.infer import InferResponse, infer
from sdcompress.serving.job import Job
from sdcompress.serving.model import ServedModel
from sdcompress.serving.protocol.request import InferRequest, json_bytes, parse
from sdcompress.serving.protocol.response import HEADER_LENGTH, response_body
from sdcompress.serving.service import Service
from sdcompress.serving.tracing import Trace

__all__ = ["HttpAnswer", "http_infer"]

_JSON_ON_THE_LOOP = 2**20  # bytes that are read without a thread, in about 50 ms
_HEADER_LENGTH = HEADER_LENGTH.lower().encode()
_DIGITS = 10  # of a length that is worth to be looked at
_WATCHED_AFTER_S = 0.02  # a task that waits for a disconnect costs more than a network that is done sooner


class HttpAnswer(NamedTuple):
    """The response to an infer request, as ASGI sends it.

    Attributes:
        headers: names in lower case, and values.
        body: after them.
    """

    headers: list[tuple[bytes, bytes]]
    body: bytes


async def http_infer(
    service: Service, model: ServedModel, headers: Mapping[bytes, bytes], receive: Receive, trace: Trace | None = None
) -> tuple[HttpAnswer, Job]:
    """Return the response to an infer request, and its finished job.

    Args:
        service: of the model.
        model: that is asked.
        headers: names in lower case -> values.
        receive: of ASGI; nothing was received yet.
        trace: of the request, if it is traced.

    Raises:
        SdcompressError, ClientGone: see ``infer`` and ``read_body``.
    """
    service.check_open()
    with service.bodies.share() as share:
        options, header = service.options, headers.get(_HEADER_LENGTH)
        body = await read_body(
            headers,
            receive,
            share,
            most_bytes=options.body_bytes,
            timeout=options.timeout,
            aligned_from=int(header) if header is not None and header.isdigit() and len(header) < _DIGITS else 0,
        )
        if trace is not None:
            trace.ends("receive")
        arrived, length = monotonic(), None if header is None else header.decode("latin-1")
        if json_bytes(body, length) > _JSON_ON_THE_LOOP:
            async with share.large:
                parsed = await asyncio.to_thread(parse, body, length)
        else:
            parsed = parse(body, length)
        del body  # only tensors of numbers still need it: raw examples are copies
        return await _answered(model, parsed, arrived, receive, trace)


async def _answered(
    model: ServedModel, parsed: InferRequest, arrived: float, receive: Receive, trace: Trace | None
) -> tuple[HttpAnswer, Job]:
    watch = _DisconnectWatch(receive)
    try:
        return await infer(model, parsed, Call(arrived, watch.gone, trace=trace), _answer)
    finally:
        watch.end()


class _DisconnectWatch:
    """Fails the future ``gone`` once the client has disconnected, if the request takes long enough to notice."""

    def __init__(self, receive: Receive) -> None:
        loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[None] = loop.create_future()
        self._receive = receive
        self._task: asyncio.Task[None] | None = None
        self._timer = loop.call_later(_WATCHED_AFTER_S, self._begin)

    def end(self) -> None:
        """Stop watching."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        if not self.gone.cancel():  # it is done: asyncio would log an error otherwise
            self.gone.exception()

    def _begin(self) -> None:
        self._task = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.gone.done():
            self.gone.set_exception(ClientGone())


def _answer(response: InferResponse) -> HttpAnswer:
    fields: dict[str, Any] = {
        "model_name": response.model_name,
        "model_version": response.model_version,
        "parameters": response.parameters,
    }
    if response.id:
        fields["id"] = response.id
    body, headers = response_body(fields, response.tensors)
    sent = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return HttpAnswer([(b"content-length", b"%d" % len(body)), *sent], body)
