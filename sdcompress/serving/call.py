"""Say how an infer request came in, whatever its protocol."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sdcompress.serving.tracing import Trace

__all__ = ["Call", "StageRun"]


@dataclass(frozen=True)
class Call:
    """How an infer request came in. Times are of ``time.monotonic``.

    Attributes:
        arrived: when all of it was there: how slowly a client sends is no delay of the service.
        gone: fails once the client has disconnected.
        until: when the client gives up; infinite: it does not say.
        trace: notes its times; None: it is not traced.
    """

    arrived: float
    gone: asyncio.Future[None]
    until: float = math.inf
    trace: Trace | None = None


class StageRun(NamedTuple):
    """What a trace notes of rows of one request in a batch, times in nanoseconds since 1970.

    Attributes:
        stage: index of its exit.
        start: of the batch.
        end: likewise.
        rows: of the request.
        batch_rows: all rows of the batch.
    """

    stage: int
    start: int
    end: int
    rows: int
    batch_rows: int
