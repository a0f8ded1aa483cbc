"""Define the calls of ``inference.GRPCInferenceService``."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import monotonic, time_ns
from typing import Any

import grpc
import grpc.aio

from sdcompress.serving.call import Call
from sdcompress.serving.errors import OverloadedError
from sdcompress.serving.grpc.messages import infer_request_of, infer_response_bytes
from sdcompress.serving.grpc.open_inference_pb2 import (
    DESCRIPTOR,
    ModelInferRequest,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ServerLiveResponse,
    ServerMetadataResponse,
    ServerReadyResponse,
)
from sdcompress.serving.grpc.patience import Context, abort, received
from sdcompress.serving.grpc.wire import message_of, split_raw
from sdcompress.serving.infer import infer
from sdcompress.serving.job import Job
from sdcompress.serving.model import ServedModel
from sdcompress.serving.observed import observed
from sdcompress.serving.refusals import Refusal, refusal_of
from sdcompress.serving.service import Service
from sdcompress.serving.tracing import Trace

__all__ = ["SERVICE", "inference_handler"]

SERVICE = DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_Call = Callable[[Any, Context], Awaitable[bytes | Refusal]]

_ON_THE_LOOP = 2**20  # bytes of typed contents that are read without a thread


def inference_handler(service: Service) -> grpc.GenericRpcHandler:
    """Return the handler of all calls; it takes and returns serialized messages."""
    calls = _Calls(service)
    named: dict[str, _Call] = {
        "ServerLive": calls.server_live,
        "ServerReady": calls.server_ready,
        "ModelReady": calls.model_ready,
        "ServerMetadata": calls.server_metadata,
        "ModelMetadata": calls.model_metadata,
    }
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        name: grpc.unary_unary_rpc_method_handler(_answering(call)) for name, call in named.items()
    }
    # as a stream of one message, which is refused before it is read while bodies take too much memory
    handlers["ModelInfer"] = grpc.stream_unary_rpc_method_handler(_answering(calls.model_infer))
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


def _answering(call: _Call) -> _Call:
    """Let errors end a call as the table of refusals says."""

    async def answer(message: Any, context: Context) -> bytes:
        try:
            answered = await call(message, context)
        except Exception as error:  # noqa: BLE001 - gRPC would send its text to the client
            answered = refusal_of(error)
        if isinstance(answered, Refusal):
            await abort(context, answered)
            raise AssertionError("abort raises")
        return answered

    return answer


class _Calls:
    """The calls: from a serialized message to that of the response, or why there is none."""

    def __init__(self, service: Service) -> None:
        self._service, self._open = service, 0  # calls of model_infer

    async def server_live(self, _: bytes, __: Context) -> bytes:
        return ServerLiveResponse(live=True).SerializeToString()

    async def server_ready(self, _: bytes, __: Context) -> bytes:
        return ServerReadyResponse(ready=self._service.ready).SerializeToString()

    async def model_ready(self, message: bytes, _: Context) -> bytes:
        request = message_of(ModelReadyRequest, message)
        ready = self._model(request.name, request.version).ready and not self._service.draining
        return ModelReadyResponse(ready=ready).SerializeToString()

    async def server_metadata(self, _: bytes, __: Context) -> bytes:
        return ServerMetadataResponse(**self._service.metadata()).SerializeToString()

    async def model_metadata(self, message: bytes, _: Context) -> bytes:
        request = message_of(ModelMetadataRequest, message)
        facts = self._model(request.name, request.version).metadata()
        for tensors in ("inputs", "outputs"):  # gRPC has no parameters here
            facts[tensors] = [{name: one[name] for name in ("name", "datatype", "shape")} for one in facts[tensors]]
        return ModelMetadataResponse(**facts).SerializeToString()

    async def model_infer(self, _: AsyncIterator[bytes], context: Context) -> bytes | Refusal:
        start = time_ns()
        self._service.check_open()
        with self._place(), self._service.bodies.share() as share:
            message = await received(context, self._service.options.timeout)
            share.resize(len(message))
            arrived, left = monotonic(), context.time_remaining()
            until = math.inf if left is None else arrived + left
            head, raw = split_raw(message)
            request = message_of(ModelInferRequest, head)
            model = self._model(request.model_name, request.model_version)
            gone = asyncio.get_running_loop().create_future()  # never ends: gRPC cancels this task instead
            trace = self._trace(model, context, start)
            work = self._infer(model, request, raw, Call(arrived, gone, until, trace))
            del message, head, raw, request  # only tensors of numbers still need them: raw examples are copies
            return await observed(self._service, model, "grpc", work, trace)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Take one of the places for requests, until the block ends. Probes have others."""
        most = self._service.options.connections
        if self._open >= most:
            raise OverloadedError(
                f"There are {self._open} calls.",
                allowed=f"{most} at once",
                next_step="send it again after the time in grpc-retry-pushback-ms, or to another server",
                retry_after_s=1.0,
            )
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    def _trace(self, model: ServedModel, context: Context, start: int) -> Trace | None:
        if (tracing := self._service.tracing) is None:
            return None
        headers = {str(name): str(value) for name, value in context.invocation_metadata() or ()}
        trace = tracing.begin("grpc", model, headers, start)
        if trace is not None:
            trace.ends("receive")
        return trace

    async def _infer(
        self, model: ServedModel, message: ModelInferRequest, raw: list[memoryview], call: Call
    ) -> tuple[bytes, Job]:
        if message.ByteSize() > _ON_THE_LOOP:
            async with self._service.bodies.large:
                request = await asyncio.to_thread(infer_request_of, message, raw)
        else:
            request = infer_request_of(message, raw)
        del message, raw
        return await infer(model, request, call, infer_response_bytes)

    def _model(self, name: str, version: str) -> ServedModel:
        return self._service.model(name, version or None)
