"""Connections to the real server: how many there may be, and how long they may stall."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import pytest

from sdcompress.runtime.open import open_cascade
from sdcompress.serving.connections import StalledConnections
from sdcompress.serving.options import ServiceOptions
from sdcompress.serving.server import DrainingServer
from sdcompress.serving.service import Service

LIVE = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"

_R = TypeVar("_R")


def with_server(folder: Path, visit: Callable[[int], Awaitable[_R]], **options: float) -> _R:
    """Run a server in this event loop, and visit its port."""
    server = DrainingServer(Service({"tiny": open_cascade(folder)}, ServiceOptions(**options)))  # type: ignore[arg-type]
    listener = socket.create_server(("127.0.0.1", 0))

    async def run() -> _R:
        serving = asyncio.ensure_future(server._serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            return await asyncio.wait_for(visit(listener.getsockname()[1]), 30)
        finally:
            server.should_exit = True
            await serving

    return asyncio.run(run())


async def ask(port: int, content: bytes = LIVE) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(content)
    return reader, writer, await reader.readuntil(b"\r\n\r\n")


def test_a_connection_too_many_gets_503_and_is_closed(tiny_artifact: Callable[..., Path]) -> None:
    async def visit(port: int) -> None:
        _, first, head = await ask(port)
        assert head.startswith(b"HTTP/1.1 200 ")
        _, second, _ = await ask(port)
        for content in (LIVE, LIVE + b"x" * 2**20):  # also while it sends
            reader, third, head = await ask(port, content)
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nretry-after: 1\r\n" in head
            assert b"too many connections" in await reader.read()
            third.close()
        first.close()
        await first.wait_closed()
        await asyncio.sleep(0.1)
        _, fourth, head = await ask(port)
        assert head.startswith(b"HTTP/1.1 200 ")
        for writer in (second, fourth):
            writer.close()

    with_server(tiny_artifact(), visit, connections=2)


@pytest.mark.parametrize(("before", "begun"), [(b"", b""), (b"", b"GET /v2 HT"), (LIVE, b"GET /v2 HTTP/1.1\r\nx: ")])
def test_a_client_that_sends_no_whole_head_is_cut_off(
    tiny_artifact: Callable[..., Path], before: bytes, begun: bytes
) -> None:
    async def visit(port: int) -> None:
        idle, keep, _ = await ask(port)  # between two requests: kept
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if before:
            writer.write(before)
            await reader.readuntil(b"true}")
        writer.write(begun)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
        assert not idle.at_eof()
        keep.write(LIVE)
        await idle.readuntil(b"HTTP/1.1 200 OK")
        for each in (keep, writer):
            each.close()

    with_server(tiny_artifact(), visit, timeout=0.5)


def test_a_client_that_does_not_read_its_response_is_cut_off() -> None:
    ended = list[str]()

    class Connection:
        """As uvicorn's, while a response is written."""

        cycle = SimpleNamespace(response_complete=False)
        timeout_keep_alive_task = None

        def __init__(self, name: str, *, paused: bool) -> None:
            self.flow = SimpleNamespace(write_paused=paused)
            self.transport = SimpleNamespace(abort=lambda: ended.append(name))

    stalled, connections = (
        StalledConnections(5.0),
        [Connection("reads", paused=False), Connection("waits", paused=True)],
    )
    for now in (0.0, 5.0):
        stalled.end(connections, now)
    assert not ended
    connections[1].flow.write_paused = False
    stalled.end(connections, 6.0)
    connections[1].flow.write_paused = True
    for now in (7.0, 12.0, 13.0):
        stalled.end(connections, now)
    assert ended == ["waits"]
