"""Answer one infer request over HTTP: from its body to the body of its response."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sdcompress.serving.body import read_body
from sdcompress.serving.call import Call
from sdcompress.serving.errors import ClientGone
from sdcompress.serving.infer import InferResponse, infer
from sdcompress.serving.job import Job
from sdcompress.serving.model import ServedModel
from sdcompress.serving.protocol.request import json_bytes, parse
from sdcompress.serving.protocol.response import HEADER_LENGTH, response_body
from sdcompress.serving.service import Service

__all__ = ["http_infer"]

_JSON_ON_THE_LOOP = 2**20  # bytes that are read without a thread, in about 50 ms


async def http_infer(service: Service, model: ServedModel, request: Request) -> tuple[Response, Job]:
    """Return the response to an infer request, and its finished job.

    Raises:
        SdcompressError, ClientGone: see ``infer`` and ``read_body``.
    """
    service.check_open()
    body = await read_body(request, most_bytes=service.options.body_bytes, timeout=service.options.timeout)
    arrived, header = monotonic(), request.headers.get(HEADER_LENGTH)
    if json_bytes(body, header) > _JSON_ON_THE_LOOP:
        parsed = await asyncio.to_thread(parse, body, header)
    else:
        parsed = parse(body, header)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        return await infer(model, parsed, Call(arrived, gone), _response)
    finally:
        if not gone.cancel():  # it is done: asyncio would log an error otherwise
            gone.exception()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    raise ClientGone


def _response(response: InferResponse) -> Response:
    fields: dict[str, Any] = {
        "model_name": response.model_name,
        "model_version": response.model_version,
        "parameters": response.parameters,
    }
    if response.id:
        fields["id"] = response.id
    body, headers = response_body(fields, response.tensors)
    return Response(body, headers=headers)
