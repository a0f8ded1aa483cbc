"""serve: answer requests over HTTP and gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import sdcompress
from sdcompress.cli.options import AllowUncertified, Backend, Device, FreeThreads, milliseconds

__all__ = ["serve"]


def serve(
    artifacts: Annotated[list[str], typer.Argument(help="folders of artifacts, or NAME=FOLDER", metavar="ARTIFACT...")],
    host: Annotated[str, typer.Option("--host", help="address to listen on; the default lets only this machine in")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 chooses a free one")] = 8000,
    grpc_port: Annotated[
        int | None,
        typer.Option("--grpc-port", min=0, max=65535, help="of the protocol over gRPC, e.g. 8001; default: no gRPC"),
    ] = None,
    metrics_port: Annotated[
        int, typer.Option("--metrics-port", min=0, max=65535, help="of /metrics, for Prometheus")
    ] = 8002,
    metrics: Annotated[bool, typer.Option("--metrics/--no-metrics", help="whether to serve metrics")] = True,
    latency_bound: Annotated[
        str, typer.Option("--latency-bound", help="a longer queue refuses requests, e.g. 200ms")
    ] = "1s",
    timeout: Annotated[str, typer.Option("--timeout", help="after which a request is given up")] = "30s",
    queue: Annotated[
        int, typer.Option("--queue", min=1, help="examples that wait or run at once, for each model")
    ] = 1024,
    batch: Annotated[int, typer.Option("--batch", min=1, help="most examples of a batch")] = 32,
    max_body: Annotated[int, typer.Option("--max-body", min=1, help="largest body of a request, in MiB")] = 64,
    max_bodies: Annotated[
        int, typer.Option("--max-bodies", min=1, help="bodies of all unanswered requests together, in MiB")
    ] = 1024,
    connections: Annotated[int, typer.Option("--connections", min=1, help="open at once; further ones get 503")] = 512,
    previous: Annotated[
        list[str] | None, typer.Option("--previous", help="NAME=FOLDER of a version before, for rollbacks; repeatable")
    ] = None,
    versions: Annotated[
        int, typer.Option("--versions", min=1, help="of each model that stay in memory, for rollbacks")
    ] = 2,
    control_port: Annotated[
        int | None,
        typer.Option("--control-port", min=0, max=65535, help="on 127.0.0.1, to load and roll back; default: none"),
    ] = None,
    drain_delay: Annotated[
        str | None,
        typer.Option("--drain-delay", help="answer on for so long after SIGTERM, e.g. 5s; default: not at all"),
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="serve a page for trying the models, and open it")] = False,
    log_requests: Annotated[bool, typer.Option("--log-requests", help="log every request")] = False,
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", help="text file with a key a line, of which clients send one")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", help="PEM file: certificate of the service; default: no TLS")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="PEM file: its private key")] = None,
    client_ca: Annotated[
        Path | None, typer.Option("--client-ca", help="PEM file: who signs the certificates that clients then need")
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="PEM file: public key or certificates of the required signer")
    ] = None,
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
        demo=demo,
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
