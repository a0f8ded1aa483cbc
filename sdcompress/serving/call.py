"""Say how an infer request came in, whatever its protocol."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

__all__ = ["Call"]


@dataclass(frozen=True)
class Call:
    """How an infer request came in. Times are of ``time.monotonic``.

    Attributes:
        arrived: when all of it was there: how slowly a client sends is no delay of the service.
        gone: fails once the client has disconnected.
        until: when the client gives up; infinite: it does not say.
    """

    arrived: float
    gone: asyncio.Future[None]
    until: float = math.inf
