"""Bound the memory that the bodies of all requests in flight take together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from sdcompress.serving.errors import OverloadedError

__all__ = ["BodyMemory", "BodyShare"]

_RETRY_AFTER_S = 1.0
_LARGE_AT_ONCE = 2


class BodyMemory:
    """The bytes of bodies that are read, or whose requests are not answered yet. Only the event loop calls it.

    Bytes count once they are there, not once they are announced: an announcement costs its sender nothing. Only a body
    that is being inflated counts as large as it may become; ``large`` lets in few of these at once, and few whose long
    JSON or typed contents are read: their lists take up to twenty-five times the bytes.

    Args:
        most_bytes: of all of them.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.held = most_bytes, 0
        self.large = asyncio.Semaphore(_LARGE_AT_ONCE)

    @contextmanager
    def share(self) -> Iterator[BodyShare]:
        """Yield the share of one request; it ends with the block."""
        share = BodyShare(self)
        try:
            yield share
        finally:
            self.held -= share.held


class BodyShare:
    """What the body of one request takes."""

    def __init__(self, memory: BodyMemory) -> None:
        self._memory, self.held, self.large = memory, 0, memory.large

    def resize(self, size: int) -> None:
        """Take so many bytes in all.

        Raises:
            OverloadedError: if the bodies of all requests would take too many.
        """
        self.check(size)
        self._memory.held += size - self.held
        self.held = size

    def check(self, size: int) -> None:
        """Refuse what ``resize`` would refuse."""
        others = self._memory.held - self.held
        if others + size > self._memory.most_bytes:
            raise OverloadedError(
                f"The bodies of other requests take {others:,} bytes.",
                allowed=f"{self._memory.most_bytes:,} bytes of all requests that are not answered yet",
                next_step="send it again after the time in Retry-After, or to another server",
                retry_after_s=_RETRY_AFTER_S,
            )
