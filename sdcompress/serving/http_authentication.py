"""Ask for an API key over HTTP."""

from __future__ import annotations

import orjson
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sdcompress.serving.errors import UnauthenticatedError
from sdcompress.serving.refusals import refusal_of
from sdcompress.serving.security import ApiKeys

__all__ = ["KeyMiddleware"]

# probes of Kubernetes cannot read secrets; the page of --demo is no secret, and asks its user for the key
_OPEN = frozenset({"/", "/v2/health/live", "/v2/health/ready"})


class KeyMiddleware:
    """Refuse requests without a key before their body is read, except those of probes and for the page of the demo.

    Args:
        app: that answers the others.
        keys: that are accepted.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["path"] not in _OPEN:
            try:
                self._keys.check(Headers(scope=scope).get("authorization"))
            except UnauthenticatedError as error:
                refusal = refusal_of(error)
                headers = {"WWW-Authenticate": 'Bearer realm="sdcompress"'}
                body = orjson.dumps({"error": refusal.message})
                await Response(body, refusal.http, headers, "application/json")(scope, receive, send)
                return
        await self._app(scope, receive, send)
