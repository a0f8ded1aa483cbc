"""Wait for the message of a call only so long: gRPC itself waits for ever, and such calls would take all places."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, cast

import anyio
import grpc
import grpc.aio

from sdcompress.serving.body import slow_body
from sdcompress.serving.errors import SlowBodyError
from sdcompress.serving.refusals import Refusal, refusal_of

__all__ = ["Context", "Handler", "PatienceInterceptor", "abort", "received"]

Context = grpc.aio.ServicerContext[bytes, bytes]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"  # not generic at run time


async def abort(context: Context, refusal: Refusal) -> None:
    """End a call as a refusal says. ``grpc-retry-pushback-ms`` tells the retry policies of clients when to try again.

    Raises:
        grpc.aio.AbortError: always.
    """
    trailing: tuple[tuple[str, str], ...] = ()
    if refusal.retry_after_s is not None:
        trailing = (("grpc-retry-pushback-ms", str(max(1, math.ceil(1000 * refusal.retry_after_s)))),)
    await context.abort(grpc.StatusCode[refusal.grpc], refusal.message, trailing)


async def received(context: Context, timeout: float) -> Any:
    """Return the message of a call that takes a stream.

    Raises:
        SlowBodyError: if it is not there within so many seconds, or does not come.
    """
    message: object = grpc.aio.EOF
    with anyio.move_on_after(timeout):
        message = await context.read()
    if message is grpc.aio.EOF:
        raise slow_body(timeout)
    return message


class PatienceInterceptor(grpc.aio.ServerInterceptor):
    """Lets calls of one message take a stream, whose first message is waited for only so long.

    Args:
        timeout: in seconds.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Return the handler of a call; one that reads its messages itself stays as it is."""
        handler: Any = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return cast("Handler", handler)
        answer = handler.unary_stream if handler.response_streaming else handler.unary_unary

        async def patient(_: Any, context: Context) -> Any:
            try:
                message = await received(context, self._timeout)
            except SlowBodyError as error:
                await abort(context, refusal_of(error))
            return await answer(message, context)

        as_stream: Callable[..., Handler] = grpc.stream_unary_rpc_method_handler
        if handler.response_streaming:
            as_stream = grpc.stream_stream_rpc_method_handler
        return as_stream(patient, handler.request_deserializer, handler.response_serializer)
