"""Run the gRPC server, with the standard health service that Kubernetes and Envoy probe."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from sdcompress.serving.grpc.authentication import KeyInterceptor
from sdcompress.serving.grpc.patience import PatienceInterceptor
from sdcompress.serving.grpc.servicer import SERVICE, inference_handler
from sdcompress.serving.security import Security
from sdcompress.serving.service import Service

__all__ = ["GrpcServer"]

_Watching = grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]

_READY = ("", SERVICE)  # what readiness is called in the health service; '' is the server as a whole
_LIVE = "liveness"
# in which the closed service itself refuses calls: those that gRPC has not handed over when it stops end as CANCELLED,
# which clients do not try again
_REFUSING_S = 0.2


class GrpcServer:
    """The calls of a service over gRPC, in the running event loop.

    Args:
        service: whose requests it takes.
        security: its keys and certificates.
    """

    def __init__(self, service: Service, security: Security) -> None:
        self._service, self._said_ready = service, False
        self._health = _Health(service.options.connections // 2)
        keys = [] if security.keys is None else [KeyInterceptor(security.keys)]
        self._server = grpc.aio.server(
            interceptors=[PatienceInterceptor(service.options.timeout), *keys],
            options=[
                ("grpc.max_receive_message_length", service.options.body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", int(service.options.workers > 1)),  # else a taken port is an error
            ],
            maximum_concurrent_rpcs=2 * service.options.connections,  # as many besides: probes are no requests
        )
        self._server.add_generic_rpc_handlers((inference_handler(service),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._credentials = security.tls.for_grpc() if security.tls else None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port.

        Raises:
            OSError: if nothing can listen there.
        """
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if self._credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise OSError(str(error)) from error
        await self._health.set(_LIVE, health_pb2.HealthCheckResponse.SERVING)
        await self._say_ready(ready=False)
        await self._server.start()
        return port

    async def tick(self) -> None:
        """Report a change of readiness to those that watch it."""
        if self._service.ready != self._said_ready:
            await self._say_ready(ready=self._service.ready)

    async def _say_ready(self, *, ready: bool) -> None:
        self._said_ready = ready
        status = health_pb2.HealthCheckResponse
        for name in _READY:
            await self._health.set(name, status.SERVING if ready else status.NOT_SERVING)

    async def stop(self, grace: float, hurry: Callable[[], bool]) -> None:
        """Wait for the accepted calls of a service that is closed.

        Args:
            grace: longest wait, in seconds.
            hurry: whether to end at once, asked again and again.
        """
        if not hurry():
            await asyncio.sleep(_REFUSING_S)
        self._health.end_watches()
        stopping: asyncio.Future[Any] = asyncio.ensure_future(self._server.stop(grace))
        while not stopping.done():
            await asyncio.wait((stopping,), timeout=0.1)
            if hurry():
                await self._server.stop(None)


class _Health(health.HealthServicer):
    """The health service. A watch lasts until its client goes, needs no key, and counts as a call: it is bounded.

    Args:
        most: watches at once, so that they leave room for other probes.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most, self._watches = most, set[asyncio.Future[None]]()

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: _Watching) -> None:  # noqa: N802 - of gRPC
        """Stream the status of a service whenever it changes."""
        if len(self._watches) >= self._most:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many clients watch. Next: call Check instead.")
        watch = asyncio.ensure_future(super().Watch(request, context))
        self._watches.add(watch)
        try:
            await asyncio.wait((watch,))
        finally:
            self._watches.discard(watch)
            watch.cancel()
        if not watch.cancelled():
            watch.result()

    def end_watches(self) -> None:
        """End all watches, and take no new one: a stop waits for calls, and would wait for these in vain."""
        self._most = 0
        for watch in self._watches:
            watch.cancel()
