"""The body of a request, as it arrives in parts."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from sdcompress.serving.body import read_body
from sdcompress.serving.body_memory import BodyMemory
from sdcompress.serving.errors import SlowBodyError


def read(*parts: bytes, ends: bool = True, **options: Any) -> bytes | memoryview:
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages[-1]["more_body"] = not ends

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def run() -> bytes | memoryview:
        with BodyMemory(2**20).share() as share:
            return await read_body({}, receive, share, most_bytes=2**20, timeout=60, **options)

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
