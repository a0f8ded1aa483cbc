"""capacity: find the load at which one machine ends, and the latencies on the way there."""

from __future__ import annotations

from pathlib import Path

from sdcompress.errors import UsageError
from sdcompress.machine import default_threads, machine
from sdcompress.options import DEFAULT_OPTIONS, EngineOptions
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.cost_model import sample_size
from sdcompress.runtime.open import open_cascade
from sdcompress.schema.capacity import Capacity
from sdcompress.serving.options import ServiceOptions
from sdcompress.serving.simulation import Simulation
from sdcompress.serving.warm_up import warm_up

__all__ = ["REQUEST_MS", "capacity"]

REQUEST_MS = 1.0
_LOADS = (0.1, 0.3, 0.5, 0.7, 0.85, 1.0, 1.25, 1.5)  # shares of the limit
_LEAST_REQUESTS, _MOST_REQUESTS, _BOUNDS = 2000, 5000, 10


def capacity(
    artifact: Path | str,
    options: EngineOptions = DEFAULT_OPTIONS,
    service: ServiceOptions | None = None,
    *,
    request_ms: float = REQUEST_MS,
) -> Capacity:
    """Measure the stages of an artifact here, and simulate its server under rising load.

    The scheduler is that of ``serve``; only time is simulated. Exits are drawn with the shares of the calibration, and
    requests arrive at random times. Docs/scale-out.md says what the simulation leaves out.

    Args:
        artifact: folder of an artifact.
        options: of the engine; default threads: those that other work leaves free.
        service: latency bound, queue and batch.
        request_ms: milliseconds of the HTTP side for each request.

    Raises:
        ArtifactError, CertificateError: if it cannot be opened; see ``open``.
        UsageError: if its backend does not offer its stages one by one, or ``request_ms`` is negative.
    """
    if not request_ms >= 0:
        raise UsageError(f"request_ms is {request_ms}.", allowed="0 or more", next_step="choose another number")
    service = service or ServiceOptions()
    threads = options.threads if options.threads is not None else default_threads().threads
    here = EngineOptions(options.backend, threads, options.device, options.allow_uncertified)
    engine = open_cascade(artifact, here, by_stages=True)
    costs, size = warm_up(engine, engine.stepwise(), most_rows=service.batch_rows), _size(engine)
    whole = (0.0,) * (costs.stages - 1) + (1.0,)
    shares = engine.policy.shares if engine.policy else whole
    simulation = Simulation(costs, shares, service, request_ms / 1000, size)
    everything = Simulation(costs, whole, service, request_ms / 1000, size)
    limit = simulation.limit(_requests(simulation.peak, service))
    return Capacity(
        artifact=engine.manifest.digest,
        exits=engine.exit_names,
        shares=shares,
        stage_ms=tuple(1000 * costs.seconds(stage, 1, size) for stage in range(costs.stages)),
        full_batch_rows=tuple(costs.most_rows(stage, size) for stage in range(costs.stages)),
        threads=threads,
        latency_bound_ms=1000 * service.latency_bound,
        request_ms=request_ms,
        limit_per_s=limit,
        whole_network_per_s=everything.limit(_requests(everything.peak, service)),
        loads=tuple(
            simulation.run(load, _requests(load, service))
            for load in (share * (limit or simulation.peak) for share in _LOADS)
        ),
        machine=machine(),
    )


def _size(engine: CascadeEngine) -> int:
    """Return the size of a row as the calibration met it; see ``runtime.cost_model.sample_size``."""
    if engine.policy and engine.policy.stage_times and engine.policy.stage_times.sizes:
        return max(1, round(engine.policy.stage_times.sizes[0]))
    first = next(iter(engine.modality.edge_cases().values()))
    return sample_size(engine.manifest.inputs, engine.modality.collate(first[None]))


def _requests(requests_per_s: float, service: ServiceOptions) -> int:
    """Return how many requests show what a load does in the long run."""
    return min(_MOST_REQUESTS, max(_LEAST_REQUESTS, int(_BOUNDS * service.latency_bound * requests_per_s)))
