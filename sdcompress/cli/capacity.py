"""capacity: find the load at which one machine ends."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import sdcompress
from sdcompress.cli.console import ms, percent, say, table, write_json
from sdcompress.cli.options import AllowUncertified, Backend, Device, FreeThreads, Json, milliseconds

if TYPE_CHECKING:
    from sdcompress.schema.capacity import Capacity

__all__ = ["capacity"]


def capacity(
    artifact: Annotated[Path, typer.Argument(help="folder of an artifact")],
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.0, help="requests per second to be answered; says how many machines")
    ] = None,
    latency_bound: Annotated[str, typer.Option("--latency-bound", help="that p99 has to keep, e.g. 200ms")] = "1s",
    request: Annotated[
        str, typer.Option("--request", help="time of the HTTP side for each request, on a core of its own")
    ] = "1ms",
    queue: Annotated[int, typer.Option("--queue", min=1, help="examples that wait or run at once")] = 1024,
    batch: Annotated[int, typer.Option("--batch", min=1, help="most examples of a batch")] = 32,
    threads: FreeThreads = None,
    backend: Backend = None,
    device: Device = None,
    allow_uncertified: AllowUncertified = False,
    json: Json = False,
) -> None:
    """Find the load at which one machine ends, by simulating the server with stage times that are measured here.

    Example: sdcompress capacity artifacts/early-exit --latency-bound 200ms --rate 5000
    """
    from sdcompress.options import EngineOptions
    from sdcompress.serving.options import ServiceOptions

    service = ServiceOptions(
        latency_bound=milliseconds(latency_bound, "--latency-bound") / 1000, queue_rows=queue, batch_rows=batch
    )
    engine = EngineOptions(backend, threads, device, allow_uncertified)
    result = sdcompress.capacity(artifact, engine, service, request_ms=milliseconds(request, "--request"))
    if json:
        limit = result.limit_per_s
        needed = {} if rate is None else {"rate_per_s": rate, "machines": math.ceil(rate / limit) if limit else None}
        write_json({**result.model_dump(mode="json"), **needed})
        return
    _show(result, rate)


def _show(result: Capacity, rate: float | None) -> None:
    rows = [
        [
            f"{point.requests_per_s:.0f}",
            f"{point.good_per_s:.0f}",
            percent(point.refused),
            ms(point.p50_ms),
            ms(point.p99_ms),
            percent(point.busy),
            f"{point.batch_rows:.1f}",
        ]
        for point in result.loads
    ]
    columns = ["requests/s", "answered in time/s", "refused", "p50 ms", "p99 ms", "busy", "rows of a batch"]
    table(columns, rows, f"simulated, latency bound {result.latency_bound_ms:g} ms")
    say(
        f"one machine takes {result.limit_per_s:.0f} requests/s, and {result.whole_network_per_s:.0f} requests/s if "
        "none exited early",
        f"stages, measured for one row: {', '.join(f'{value:.3g}' for value in result.stage_ms)} ms; "
        f"{result.threads} thread(s), {result.machine.cpu}",
    )
    if rate:
        say(f"{rate:g} requests/s need {_machines(rate, result.limit_per_s)}")


def _machines(rate: float, limit: float) -> str:
    if limit <= 0:
        return "another network or a longer latency bound: one request alone takes too long"
    count = math.ceil(rate / limit)
    return "1 machine" if count == 1 else f"{count} machines like this one"
