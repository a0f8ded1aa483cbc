"""How much load one machine takes: the record of ``capacity``. docs/scale-out.md explains it."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from sdcompress.schema.base import Fraction, Frozen, Sha256
from sdcompress.schema.report import Machine

__all__ = ["Capacity", "LoadPoint"]


class LoadPoint(Frozen):
    """What clients see at one load."""

    requests_per_s: PositiveFloat = Field(description="that arrive, at random times")
    good_per_s: NonNegativeFloat = Field(description="that are answered within the latency bound")
    refused: Fraction = Field(description="share that is refused because the queue is too long")
    p50_ms: NonNegativeFloat | None = Field(description="of the answered requests; None: all are refused")
    p99_ms: NonNegativeFloat | None = Field(description="likewise")
    busy: Fraction = Field(description="share of the time in which the network computes")
    batch_rows: NonNegativeFloat = Field(description="mean rows of a batch")


class Capacity(Frozen):
    """The load at which one machine ends, by simulation of the server's scheduler with measured stage times."""

    artifact: Sha256 = Field(description="digest")
    exits: tuple[str, ...]
    shares: tuple[Fraction, ...] = Field(description="of the requests that exit at each exit")
    stage_ms: tuple[NonNegativeFloat, ...] = Field(description="measured here, of one row")
    full_batch_rows: tuple[PositiveInt, ...] = Field(description="rows of a full batch at each stage")
    threads: PositiveInt
    latency_bound_ms: PositiveFloat
    request_ms: NonNegativeFloat = Field(description="of the HTTP side for each request, on a core of its own")
    limit_per_s: NonNegativeFloat = Field(
        description="largest load with at most 1 % refused and p99 within the latency bound"
    )
    whole_network_per_s: NonNegativeFloat = Field(description="the same if every request ran the whole network")
    loads: tuple[LoadPoint, ...]
    machine: Machine
