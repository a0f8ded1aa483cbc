"""Read the body of an HTTP request within limits of size and time."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping

import anyio
import numpy as np
from starlette.types import Receive

from sdcompress.errors import InputError, brief
from sdcompress.serving.body_memory import BodyShare
from sdcompress.serving.errors import SlowBodyError, TooLargeError, UnknownEncodingError

__all__ = ["read_body", "slow_body"]

_WINDOW = {b"gzip": 31, b"deflate": 15}  # zlib's numbers for the two formats
_ALIGNMENT = 64  # bytes
_ON_THE_LOOP = 2**12  # bytes that are inflated without a thread: they become 4 MiB at most
_MOST_INFLATION = 1032  # of deflate: a run of 258 bytes takes 2 bits
_DIGITS = 20  # of a length that is too large in any case


async def read_body(
    headers: Mapping[bytes, bytes],
    receive: Receive,
    share: BodyShare,
    *,
    most_bytes: int,
    timeout: float,
    aligned_from: int = 0,
) -> bytes | memoryview:
    """Return the body, decompressed.

    Args:
        headers: names in lower case -> values.
        receive: of ASGI; nothing was received yet.
        share: of the memory for bodies; it holds the returned bytes.
        most_bytes: before and after decompression.
        timeout: seconds until all of it has to be there.
        aligned_from: index of a byte whose address suits any number, so that a tensor which begins there need not be
            copied; of bodies that arrive in parts, uncompressed.

    Raises:
        TooLargeError: if it is larger.
        OverloadedError: if the bodies of all requests take too much memory.
        SlowBodyError: if it takes longer, or breaks off.
        UnknownEncodingError: if it is compressed in an unknown way.
        InputError: if the compressed data is broken.
    """
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding != b"identity" and encoding not in _WINDOW:
        raise UnknownEncodingError(
            f"The Content-Encoding is '{brief(encoding.decode('latin-1'))}'.",
            allowed=b", ".join((b"identity", *_WINDOW)).decode(),
            next_step="send the body without compression",
        )
    declared = headers.get(b"content-length", b"")
    if declared.isdigit():
        size = int(declared.lstrip(b"0")[:_DIGITS] or 0)  # of more digits, also of zeros, ``int`` reads none
        if size > most_bytes:
            raise _too_large(most_bytes)
        share.check(size)
    body = None
    with anyio.move_on_after(timeout):
        body = await _received(receive, share, most_bytes, aligned_from)
    if body is None:
        raise slow_body(timeout)
    if encoding == b"identity":
        return body
    if len(body) <= _ON_THE_LOOP:
        inflated = _inflated(body, _WINDOW[encoding], most_bytes)
    else:
        async with share.large:
            share.resize(min(most_bytes, _MOST_INFLATION * len(body)))  # how large it becomes is not known before
            inflated = await asyncio.to_thread(_inflated, body, _WINDOW[encoding], most_bytes)
    share.resize(len(inflated))
    return inflated


def slow_body(timeout: float) -> SlowBodyError:
    """Return the error of a body that did not arrive within so many seconds."""
    return SlowBodyError(
        "The body of the request did not arrive as a whole.",
        allowed=f"all of it within {timeout:g} s",
        next_step="send it again",
    )


async def _received(
    receive: Receive, share: BodyShare, most_bytes: int, aligned_from: int
) -> bytes | memoryview | None:
    """Return the body; None: the client has disconnected."""
    chunks, size, more = list[bytes](), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size > most_bytes:
            raise _too_large(most_bytes)
        share.resize(size)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else _joined(chunks, size, aligned_from)


def _joined(chunks: list[bytes], size: int, aligned_from: int) -> memoryview:
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -(memory.ctypes.data + aligned_from) % _ALIGNMENT
    body, at = memory[start : start + size].data, 0
    for chunk in chunks:
        body[at : at + len(chunk)] = chunk
        at += len(chunk)
    return body


def _inflated(body: bytes | memoryview, window: int, most_bytes: int) -> bytes:
    decompressor = zlib.decompressobj(window)
    try:
        inflated = decompressor.decompress(body, most_bytes + 1)
    except zlib.error as error:
        raise _broken() from error
    if len(inflated) > most_bytes:
        raise _too_large(most_bytes)
    if not decompressor.eof or decompressor.unused_data:
        raise _broken()
    return inflated


def _broken() -> InputError:
    return InputError(
        "The compressed body is broken.",
        allowed="one whole stream of the format that Content-Encoding names",
        next_step="compress it again, or send it without compression",
    )


def _too_large(most_bytes: int) -> TooLargeError:
    return TooLargeError(
        "The body is too large.",
        allowed=f"{most_bytes:,} bytes, also once it is decompressed",
        next_step="send fewer rows at once, raw examples instead of tensors, or binary data instead of JSON",
    )
