"""Count, time and log an infer request of any protocol, however it ends."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from time import perf_counter
from typing import Any, Literal, TypeVar

from sdcompress.serving.errors import ClientGone
from sdcompress.serving.job import Job
from sdcompress.serving.model import ServedModel
from sdcompress.serving.refusals import Outcome, Refusal, refusal_of
from sdcompress.serving.service import Service
from sdcompress.serving.tracing import Trace

__all__ = ["observed"]

_LOG = logging.getLogger(__name__)
_LOGGED_ROWS = 16
_CANCELLED = refusal_of(ClientGone())

_Answer = TypeVar("_Answer")


async def observed(
    service: Service,
    model: ServedModel,
    protocol: Literal["http", "grpc"],
    work: Awaitable[tuple[_Answer, Job]],
    trace: Trace | None = None,
) -> _Answer | Refusal:
    """Return the answer of the work, or why there is none.

    Args:
        service: of the model.
        model: that is asked.
        protocol: for the log.
        work: answers the request.
        trace: of the request, if it is traced.
    """
    start = perf_counter()
    ended: Job | Refusal = _CANCELLED
    try:
        with model.in_use():
            answer, ended = await work
    except Exception as error:  # noqa: BLE001 - a bug must not show its internals to a client
        ended = refusal_of(error)
        return ended
    else:
        return answer
    finally:
        _end(service, model, protocol, perf_counter() - start, ended)
        if trace is not None:
            trace.end(model, ended)


def _end(service: Service, model: ServedModel, protocol: str, seconds: float, ended: Job | Refusal) -> None:
    outcome: Outcome = ended.outcome if isinstance(ended, Refusal) else "ok"
    model.metrics.request(outcome, seconds)
    if not service.options.log_requests or outcome == "cancelled":
        return
    entry: dict[str, Any] = {"model": model.name, "protocol": protocol, "outcome": outcome}
    entry |= {"status": ended.http if isinstance(ended, Refusal) else 200, "ms": round(1000 * seconds, 3)}
    if isinstance(ended, Job):
        entry |= {"rows": ended.rows, "exits": [model.exits[at] for at in ended.exit_index.tolist()[:_LOGGED_ROWS]]}
    _LOG.info("request", extra=entry)
