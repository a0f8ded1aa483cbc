"""Ask for an API key in gRPC."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from sdcompress.serving.errors import UnauthenticatedError
from sdcompress.serving.grpc.patience import Context, Handler, abort
from sdcompress.serving.grpc.servicer import SERVICE
from sdcompress.serving.refusals import refusal_of
from sdcompress.serving.security import ApiKeys

__all__ = ["KeyInterceptor"]

_OPEN = frozenset({f"/{SERVICE}/ServerLive", f"/{SERVICE}/ServerReady"})
_HEALTH = "/grpc.health.v1.Health/"


class KeyInterceptor(grpc.aio.ServerInterceptor):
    """Refuse calls without a key, except those of probes.

    Args:
        keys: that are accepted.
    """

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Return the handler of a call, or one that refuses it."""
        method = str(handler_call_details.method)
        if method in _OPEN or method.startswith(_HEALTH):
            return await continuation(handler_call_details)
        metadata = {str(name): value for name, value in handler_call_details.invocation_metadata or ()}
        try:
            self._keys.check(metadata.get("authorization"))
        except UnauthenticatedError as error:
            return _refusing(error)
        return await continuation(handler_call_details)


def _refusing(error: UnauthenticatedError) -> Handler:
    async def refuse(_: Any, context: Context) -> None:
        await abort(context, refusal_of(error))

    # as a stream, whose messages are never read: a unary call would be received first
    return grpc.stream_unary_rpc_method_handler(refuse)
