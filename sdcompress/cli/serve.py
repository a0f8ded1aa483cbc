"""serve: answer requests over HTTP and gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import sdcompress
from sdcompress.cli.options import AllowUncertified, Backend, Device, FreeThreads, milliseconds, share

__all__ = ["serve"]


Artifacts = Annotated[list[str], typer.Argument(help="folders of artifacts, or NAME=FOLDER", metavar="ARTIFACT...")]
Host = Annotated[str, typer.Option("--host", help="address to listen on; the default lets only this machine in")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="0 chooses a free one")]
GrpcPort = Annotated[
    int | None,
    typer.Option("--grpc-port", min=0, max=65535, help="of the protocol over gRPC, e.g. 8001; default: no gRPC"),
]
MetricsPort = Annotated[int, typer.Option("--metrics-port", min=0, max=65535, help="of /metrics, for Prometheus")]
WithMetrics = Annotated[bool, typer.Option("--metrics/--no-metrics", help="whether to serve metrics")]
LatencyBound = Annotated[str, typer.Option("--latency-bound", help="a longer queue refuses requests, e.g. 200ms")]
Timeout = Annotated[str, typer.Option("--timeout", help="after which a request is given up")]
Queue = Annotated[int, typer.Option("--queue", min=1, help="examples that wait or run at once, for each model")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="most examples of a batch")]
MaxBody = Annotated[int, typer.Option("--max-body", min=1, help="largest body of a request, in MiB")]
MaxBodies = Annotated[
    int, typer.Option("--max-bodies", min=1, help="bodies of all unanswered requests together, in MiB")
]
Connections = Annotated[int, typer.Option("--connections", min=1, help="open at once; further ones get 503")]
Previous = Annotated[
    list[str] | None, typer.Option("--previous", help="NAME=FOLDER of a version before, for rollbacks; repeatable")
]
Versions = Annotated[int, typer.Option("--versions", min=1, help="of each model that stay in memory, for rollbacks")]
ControlPort = Annotated[
    int | None,
    typer.Option("--control-port", min=0, max=65535, help="on 127.0.0.1, to load and roll back; default: none"),
]
DrainDelay = Annotated[
    str | None, typer.Option("--drain-delay", help="answer on for so long after SIGTERM, e.g. 5s; default: not at all")
]
OnDriftOption = Annotated[
    Literal["fall-back", "report", "ignore"],
    typer.Option("--on-drift", help="run the whole network, only say so, or do not look"),
]
Audit = Annotated[
    str, typer.Option("--audit", help="share of examples that also run to the last exit, to detect drift")
]
BrownOut = Annotated[
    bool, typer.Option("--brown-out", help="before requests are refused, step down to larger certified drops")
]
WorkerProcesses = Annotated[
    int,
    typer.Option(
        "--workers", min=1, help="processes on the same port, which share the threads; one that ends is replaced"
    ),
]
Demo = Annotated[bool, typer.Option("--demo", help="serve a page for trying the models, and open it")]
LogRequests = Annotated[bool, typer.Option("--log-requests", help="log every request")]
ApiKeyFile = Annotated[
    Path | None, typer.Option("--api-key-file", help="text file with a key a line, of which clients send one")
]
TlsCert = Annotated[
    Path | None, typer.Option("--tls-cert", help="PEM file: certificate of the service; default: no TLS")
]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", help="PEM file: its private key")]
ClientCa = Annotated[
    Path | None, typer.Option("--client-ca", help="PEM file: who signs the certificates that clients then need")
]
Tracing = Annotated[
    bool, typer.Option("--tracing", help="send spans to OpenTelemetry, as the OTEL_ environment variables say")
]
Signer = Annotated[
    Path | None,
    typer.Option("--key", help="PEM file: public key or certificates of the required signer of the artifacts"),
]


def serve(
    artifacts: Artifacts,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    grpc_port: GrpcPort = None,
    metrics_port: MetricsPort = 8002,
    metrics: WithMetrics = True,
    latency_bound: LatencyBound = "1s",
    timeout: Timeout = "30s",
    queue: Queue = 1024,
    batch: Batch = 32,
    max_body: MaxBody = 64,
    max_bodies: MaxBodies = 1024,
    connections: Connections = 1024,
    previous: Previous = None,
    versions: Versions = 2,
    control_port: ControlPort = None,
    drain_delay: DrainDelay = None,
    on_drift: OnDriftOption = "fall-back",
    audit: Audit = "1%",
    brown_out: BrownOut = False,
    workers: WorkerProcesses = 1,
    demo: Demo = False,
    log_requests: LogRequests = False,
    api_key_file: ApiKeyFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    client_ca: ClientCa = None,
    tracing: Tracing = False,
    key: Signer = None,
    threads: FreeThreads = None,
    backend: Backend = None,
    device: Device = None,
    allow_uncertified: AllowUncertified = False,
) -> None:
    """Serve artifacts over HTTP by the Open Inference Protocol, with batches that form anew at every exit.

    SIGTERM drains: accepted requests are answered, then the process ends. Logs go to stderr as JSON.

    Example: sdcompress serve artifacts/early-exit --port 8000
    """
    from sdcompress.options import EngineOptions
    from sdcompress.serving.options import ServiceOptions

    options = ServiceOptions(
        host=host,
        port=port,
        grpc_port=grpc_port,
        metrics_port=metrics_port if metrics else None,
        latency_bound=milliseconds(latency_bound, "--latency-bound") / 1000,
        timeout=milliseconds(timeout, "--timeout") / 1000,
        queue_rows=queue,
        batch_rows=batch,
        body_bytes=max_body * 2**20,
        memory_for_bodies=max_bodies * 2**20,
        connections=connections,
        versions=versions,
        control_port=control_port,
        drain_delay=milliseconds(drain_delay, "--drain-delay") / 1000 if drain_delay else 0.0,
        log_requests=log_requests,
        api_key_file=api_key_file,
        tls_cert=tls_cert,
        tls_key=tls_key,
        client_ca=client_ca,
        tracing=tracing,
        workers=workers,
        demo=demo,
        on_drift=on_drift,
        audit_share=share(audit, "--audit"),
        brown_out=brown_out,
    )
    engine = EngineOptions(backend, threads, device, allow_uncertified)
    named = [_named(artifact) for artifact in artifacts]
    before = [_named(artifact) for artifact in previous or ()]
    sdcompress.serve(named, engine, options, previous=before, require_signature=key)


def _named(argument: str) -> tuple[str, Path]:
    """Return NAME=FOLDER as both; a folder alone gives its name, also one with an equals sign."""
    name, equals, folder = argument.partition("=")
    if equals and not Path(argument).exists():
        return name, Path(folder)
    return Path(argument).resolve().name, Path(argument)
