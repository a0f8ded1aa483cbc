"""Answer one infer request: from its body to the body of its response."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sdcompress.errors import InputError, brief
from sdcompress.serving.body import read_body
from sdcompress.serving.infer_options import InferOptions, infer_options_of
from sdcompress.serving.job import Job
from sdcompress.serving.model import ServedModel
from sdcompress.serving.protocol.request import InferRequest, Output, parse
from sdcompress.serving.protocol.response import HEADER_LENGTH, ResponseTensor, response_body
from sdcompress.serving.service import Service

__all__ = ["ClientGone", "answer"]

_ON_THE_LOOP = 2**16  # outputs that are written without a thread
_JSON_ON_THE_LOOP = 2**20  # bytes that are read without a thread, in about 50 ms


class ClientGone(Exception):
    """The client has disconnected."""


async def answer(service: Service, model: ServedModel, request: Request) -> tuple[Response, Job]:
    """Return the response to an infer request, and its finished job.

    Raises:
        SdcompressError: an ``InputError`` if the client is to blame; see ``ServedModel.run``.
        ClientGone: if the client has gone.
    """
    service.check_open()
    body = await read_body(request, most_bytes=service.options.body_bytes, timeout=service.options.timeout)
    arrived = monotonic()  # not before: how slowly a client sends is no delay of this service
    header = request.headers.get(HEADER_LENGTH)
    long_json = header is None and len(body) > _JSON_ON_THE_LOOP
    parsed = await asyncio.to_thread(parse, body) if long_json else parse(body, header)
    options, wanted = infer_options_of(parsed.parameters, model.exits), _wanted(parsed, model)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        inputs = await model.inputs(parsed.inputs, service.preparing, gone)
        service.check_open()
        job = await model.run(inputs, options, arrived, gone)
    finally:
        if not gone.cancel():  # it is done: asyncio would log an error otherwise
            gone.exception()
    if job.outputs.size <= _ON_THE_LOOP:
        return _response(model, parsed, options, wanted, job), job
    return await asyncio.to_thread(_response, model, parsed, options, wanted, job), job


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    raise ClientGone


def _wanted(request: InferRequest, model: ServedModel) -> tuple[Output, ...]:
    if not request.outputs:
        return tuple(Output(name) for name, served in model.outputs.items() if served.always)
    if unknown := next((output.name for output in request.outputs if output.name not in model.outputs), None):
        raise InputError(
            f"There is no output '{brief(unknown)}'.",
            allowed=", ".join(model.outputs),
            next_step="correct the name, or leave 'outputs' out to get all",
        )
    if len({output.name for output in request.outputs}) < len(request.outputs):
        raise InputError("An output is asked for twice.", next_step="name each output once")
    return request.outputs


def _response(
    model: ServedModel, request: InferRequest, options: InferOptions, wanted: tuple[Output, ...], job: Job
) -> Response:
    prediction = model.prediction(job)
    tensors = []
    for output in wanted:
        served = model.outputs[output.name]
        binary = options.binary if output.binary is None else output.binary
        data = served.compute(prediction, job.scores)
        tensors.append(ResponseTensor(output.name, served.datatype, (job.rows, *served.shape), data, binary))
    fields: dict[str, Any] = {
        "model_name": model.name,
        "model_version": model.version,
        "parameters": model.parameters(job, options),
    }
    if request.id:
        fields["id"] = request.id
    body, headers = response_body(fields, tensors)
    return Response(body, headers=headers)
