"""Define why a service refuses a request: errors of ``sdcompress.errors`` that say more to its client."""

from __future__ import annotations

from sdcompress.errors import InputError, SdcompressError

__all__ = [
    "ClientGone",
    "ComputeFailedError",
    "NoSuchModelError",
    "OverloadedError",
    "SlowBodyError",
    "TimedOutError",
    "TooLargeError",
    "UnauthenticatedError",
    "UnavailableError",
    "UncomputableError",
    "UnknownEncodingError",
]


class ClientGone(Exception):
    """The client has disconnected."""


class SlowBodyError(InputError):
    """A body that does not arrive in time, or breaks off."""


class UnknownEncodingError(InputError):
    """A Content-Encoding that is not supported."""


class TooLargeError(InputError):
    """A request that is larger than the service allows."""


class UncomputableError(InputError):
    """Inputs of the right form that the network cannot compute, or for which its outputs are not finite."""


class NoSuchModelError(InputError):
    """A model or version that the service does not have."""


class UnauthenticatedError(InputError):
    """A request without a valid API key."""


class OverloadedError(SdcompressError):
    """A full queue, or one that is too long for the latency bound.

    Args:
        problem: what was found.
        allowed: what is allowed.
        next_step: what to do next.
        retry_after_s: when it is worth to try again, in seconds.
    """

    def __init__(self, problem: str, *, allowed: str, next_step: str, retry_after_s: float) -> None:
        super().__init__(problem, allowed=allowed, next_step=next_step)
        self.retry_after_s = retry_after_s


class UnavailableError(OverloadedError):
    """A service that cannot answer now: it starts, or it stops."""


class ComputeFailedError(UnavailableError):
    """A device that failed, or had too little memory, or a network that runs no input any more."""


class TimedOutError(UnavailableError):
    """A request that took too long."""
