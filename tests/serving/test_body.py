"""The body of a request, as it arrives in parts."""

from __future__ import annotations

import asyncio
import gzip
from random import Random
from typing import Any

import numpy as np
import pytest

from sdcompress.serving.body import read_body
from sdcompress.serving.body_memory import BodyMemory
from sdcompress.serving.errors import OverloadedError, SlowBodyError, TooLargeError


def read(
    *parts: bytes, ends: bool = True, headers: dict[bytes, bytes] | None = None, **options: Any
) -> bytes | memoryview:
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages[-1]["more_body"] = not ends

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def run() -> bytes | memoryview:
        with BodyMemory(2**20).share() as share:
            return await read_body(headers or {}, receive, share, most_bytes=2**20, timeout=60, **options)

    return asyncio.run(run())


@pytest.mark.parametrize("head", [b"", b"{}", b"x" * 101])
def test_a_tensor_that_arrives_in_parts_lies_where_numbers_may(head: bytes) -> None:
    sent = head + np.arange(999.0).tobytes()
    body = read(sent[:1], sent[1:500], sent[500:], aligned_from=len(head))
    assert bytes(body) == sent
    assert np.frombuffer(body[len(head) :], np.float64).flags.aligned


def test_a_body_in_one_part_is_not_copied() -> None:
    part = b"a body"
    assert read(part) is part


def test_a_client_that_goes_away_within_its_body_is_refused() -> None:
    with pytest.raises(SlowBodyError, match="did not arrive as a whole"):
        read(b"a", ends=False)


def test_a_length_of_many_digits_is_read() -> None:
    assert read(b"a body", headers={b"content-length": b"0" * 5000 + b"6"}) == b"a body"
    assert read(b"", headers={b"content-length": b"0"}) == b""
    with pytest.raises(TooLargeError):
        read(b"a body", headers={b"content-length": b"9" * 5000})


def test_a_body_counts_while_it_is_inflated() -> None:
    content = Random(0).randbytes(6000) + bytes(10_000)
    compressed = gzip.compress(content)
    assert len(compressed) > 4096, "so that a thread inflates it"
    memory, messages = (
        BodyMemory(2 * 2**19 + 2**16),
        [{"type": "http.request", "body": compressed, "more_body": False}] * 3,
    )

    async def ask() -> bytes | memoryview:
        async def receive() -> dict[str, Any]:
            return messages.pop()

        with memory.share() as share:
            headers = {b"content-encoding": b"gzip"}
            return await read_body(headers, receive, share, most_bytes=2**19, timeout=60)

    async def run() -> list[bytes | memoryview]:
        return [*await asyncio.gather(ask(), ask(), ask())]  # the third waits for its turn

    assert asyncio.run(run()) == [content] * 3
    assert memory.held == 0
    memory, messages = BodyMemory(2**19), [{"type": "http.request", "body": compressed, "more_body": False}] * 2

    async def beside(size: int) -> bytes | memoryview:
        with memory.share() as share:
            share.resize(size)
            return await ask()

    assert asyncio.run(beside(0)) == content
    with pytest.raises(OverloadedError):  # it might not fit
        asyncio.run(beside(2**18))
