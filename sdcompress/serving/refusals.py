"""Say how errors end a request: one table for all protocols."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

from sdcompress.errors import SdcompressError, UsageError
from sdcompress.serving.errors import (
    ClientGone,
    ComputeFailedError,
    NoSuchModelError,
    OverloadedError,
    SlowBodyError,
    TimedOutError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
    UncomputableError,
    UnknownEncodingError,
)

__all__ = ["GrpcCode", "Outcome", "Refusal", "refusal_of"]

_LOG = logging.getLogger(__name__)

Outcome = Literal["ok", "invalid", "uncomputable", "overloaded", "unavailable", "cancelled", "failed"]
GrpcCode = Literal[
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "INTERNAL",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "RESOURCE_EXHAUSTED",
    "UNAUTHENTICATED",
    "UNAVAILABLE",
    "UNIMPLEMENTED",
]

# the first class that fits; what is none of these is a fault of the service
_TABLE: tuple[tuple[type[Exception], int, GrpcCode, Outcome], ...] = (
    (UnauthenticatedError, 401, "UNAUTHENTICATED", "invalid"),
    (NoSuchModelError, 404, "NOT_FOUND", "invalid"),
    (SlowBodyError, 408, "DEADLINE_EXCEEDED", "invalid"),
    # not RESOURCE_EXHAUSTED: the same request never fits, so that it must not be sent again
    (TooLargeError, 413, "INVALID_ARGUMENT", "invalid"),
    (UnknownEncodingError, 415, "UNIMPLEMENTED", "invalid"),
    (UncomputableError, 422, "INVALID_ARGUMENT", "uncomputable"),
    (ComputeFailedError, 503, "UNAVAILABLE", "failed"),
    (TimedOutError, 503, "DEADLINE_EXCEEDED", "unavailable"),
    (UnavailableError, 503, "UNAVAILABLE", "unavailable"),
    (OverloadedError, 429, "RESOURCE_EXHAUSTED", "overloaded"),
    (UsageError, 400, "INVALID_ARGUMENT", "invalid"),
    (ClientGone, 499, "CANCELLED", "cancelled"),  # as nginx logs it; nobody reads the response
)


@dataclass(frozen=True)
class Refusal:
    """How a request ends without an answer.

    Attributes:
        http: status code.
        grpc: name of the status code.
        outcome: in the metrics.
        message: for the client.
        retry_after_s: when it is worth to try again, in seconds; None: never.
    """

    http: int
    grpc: GrpcCode
    outcome: Outcome
    message: str
    retry_after_s: float | None = None


def refusal_of(error: Exception) -> Refusal:
    """Return how an error ends a request. A fault of the service is logged, and its client sees no internals."""
    row = next((row for row in _TABLE if isinstance(error, row[0])), None)
    if row is None:
        _LOG.error("a request failed", exc_info=error)
        return Refusal(500, "INTERNAL", "failed", "The service failed. Next: look into its log.")
    retry_after_s = error.retry_after_s if isinstance(error, OverloadedError) else None
    return Refusal(*row[1:], _message(error), retry_after_s)


def _message(error: Exception) -> str:
    if not isinstance(error, SdcompressError):
        return ""
    allowed = f"Allowed: {error.allowed}." if error.allowed else ""
    next_step = f"Next: {error.next_step}." if error.next_step else ""
    return " ".join(part for part in (error.problem, allowed, next_step) if part)
