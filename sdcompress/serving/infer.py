"""Answer one infer request of any protocol: from its parsed form to the tensors of its response."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sdcompress.errors import InputError, brief
from sdcompress.serving.call import Call
from sdcompress.serving.infer_options import InferOptions, infer_options_of
from sdcompress.serving.job import Job
from sdcompress.serving.model import ServedModel
from sdcompress.serving.protocol.request import InferRequest, Output, Parameter
from sdcompress.serving.protocol.response import ResponseTensor

__all__ = ["InferResponse", "infer"]

_ON_THE_LOOP = 2**16  # outputs that are written without a thread

_Written = TypeVar("_Written")


@dataclass(frozen=True)
class InferResponse:
    """What a client gets.

    Attributes:
        model_name: of the model.
        model_version: likewise.
        id: of the request.
        parameters: of the response.
        tensors: the outputs that were asked for.
    """

    model_name: str
    model_version: str
    id: str
    parameters: dict[str, Parameter]
    tensors: list[ResponseTensor]


async def infer(
    model: ServedModel, request: InferRequest, call: Call, write: Callable[[InferResponse], _Written]
) -> tuple[_Written, Job]:
    """Return the written response to a request, and its finished job.

    Args:
        model: to run.
        request: in its parsed form.
        call: how it came in.
        write: turns the response into a message of the protocol; called on a thread if the response is large.

    Raises:
        SdcompressError: an ``InputError`` if the client is to blame; see ``ServedModel.infer``.
        ClientGone: if the client has gone.
    """
    options, wanted = infer_options_of(request.parameters, model.exits), _wanted(request, model)
    job = await model.infer(request.inputs, options, call)

    def written() -> _Written:
        return write(_response(model, request.id, options, wanted, job))

    return (written() if job.outputs.size <= _ON_THE_LOOP else await asyncio.to_thread(written)), job


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
    model: ServedModel, request_id: str, options: InferOptions, wanted: tuple[Output, ...], job: Job
) -> InferResponse:
    prediction = model.prediction(job)
    tensors = []
    for output in wanted:
        served = model.outputs[output.name]
        binary = options.binary if output.binary is None else output.binary
        data = served.compute(prediction, job.scores)
        tensors.append(ResponseTensor(output.name, served.datatype, (job.rows, *served.shape), data, binary))
    return InferResponse(model.name, model.version, request_id, model.parameters(job), tensors)
