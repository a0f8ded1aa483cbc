"""A service of tiny artifacts, asked in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from sdcompress.runtime.open import open_cascade
from sdcompress.serving.app import create_app
from sdcompress.serving.grpc.server import GrpcServer
from sdcompress.serving.options import ServiceOptions
from sdcompress.serving.security import Security
from sdcompress.serving.service import Service

T = TypeVar("T")
MODEL = "/v2/models/tiny"


class Client:
    """Asks a service; each call runs its own event loop, as each test has its own service."""

    def __init__(self, service: Service) -> None:
        self.service, self.application = service, create_app(service)

    def request(self, method: str, path: str, **request: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with self.connect() as client:
                return await client.request(method, path, **request)

        return asyncio.run(ask())

    def connect(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.application), base_url="http://service")

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)

    def infer(self, body: Any, path: str = f"{MODEL}/infer") -> httpx.Response:
        return self.request("POST", path, json=body)


Serve = Callable[..., Client]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve artifacts by name; ``serve({"tiny": folder}, **options)``. They are warm."""
    running: list[Service] = []

    def start(artifacts: dict[str, Path], *, warm: bool = True, **options: Any) -> Client:
        engines = {name: open_cascade(folder) for name, folder in artifacts.items()}
        service = Service(engines, ServiceOptions(**options))
        running.append(service)
        if warm:
            service.start().join()
            assert service.failure is None
        return Client(service)

    yield start
    for service in running:
        service.stop()


@pytest.fixture
def client(serve: Serve, tiny_artifact: Callable[..., Path]) -> Client:
    """The tiny cascade with a policy."""
    return serve({"tiny": tiny_artifact(policy=(0.7, 0.6))})


class Loop:
    """An event loop on a thread of its own, for servers that clients of this thread ask."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    running = Loop()
    yield running
    running.stop()


@pytest.fixture
def serve_grpc(loop: Loop) -> Iterator[Callable[..., str]]:
    """Serve over gRPC; ``serve_grpc(service, security)`` returns the address."""
    servers: list[GrpcServer] = []

    def start(service: Service, security: Security | None = None) -> str:
        async def started() -> int:
            server = GrpcServer(service, security or Security())
            servers.append(server)
            return await server.start("127.0.0.1", 0)

        port = loop.run(started())
        loop.run(servers[-1].tick())
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        loop.run(server.stop(5, lambda: False))
