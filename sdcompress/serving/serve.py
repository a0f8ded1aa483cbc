"""serve: answer requests over HTTP until the process is told to stop."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sdcompress.errors import UsageError, brief, requires_extra
from sdcompress.machine import default_threads
from sdcompress.options import DEFAULT_OPTIONS, EngineOptions
from sdcompress.serving.demo.display import open_page
from sdcompress.serving.options import ServiceOptions
from sdcompress.serving.setup import ServiceSetup

if TYPE_CHECKING:
    from sdcompress.runtime.cascade import CascadeEngine
    from sdcompress.serving.security import Security
    from sdcompress.serving.tracing import Tracing

__all__ = ["serve"]

Artifacts = Iterable[Path | str | tuple[str, Path | str]]

_LOG = logging.getLogger(__name__)
_MOST_NAME = 200


def serve(
    artifacts: Artifacts,
    options: EngineOptions = DEFAULT_OPTIONS,
    service: ServiceOptions | None = None,
    *,
    require_signature: Path | str | None = None,
) -> None:
    """Serve artifacts by the Open Inference Protocol until SIGTERM or SIGINT; logs go to stderr.

    Args:
        artifacts: folders, each alone, which takes its name, or as (name, folder).
        options: of the engines; default threads: those that other work leaves free.
        service: addresses, bounds, limits.
        require_signature: PEM file by whose holder the artifacts must be signed; see ``open``.

    Raises:
        ArtifactError, SignatureError, CertificateError: if an artifact cannot be opened; see ``open``.
        UsageError: if two artifacts have one name, or a backend does not offer its stages one by one.
        SetupError: if an address cannot be listened on, or a file of keys or certificates cannot be used.
        MissingExtraError: if the packages of the extra 'serve', 'grpc' or 'otel' are not installed.
    """
    with requires_extra("serve"):
        from sdcompress.serving.logs import log_to_stderr
        from sdcompress.serving.security import exposure, load_security
        from sdcompress.serving.server import DrainingServer, listening
        from sdcompress.serving.service import Service

    service = service or ServiceOptions()
    tracing = _optional(service)
    security = load_security(service)
    threads = options.threads if options.threads is not None else default_threads().threads
    setup = ServiceSetup(
        _named(artifacts),
        EngineOptions(options.backend, threads, options.device, options.allow_uncertified),
        service,
        require_signature,
    )
    log_to_stderr()
    engines = setup.engines()
    if warning := exposure(service.host, security):
        _LOG.warning(warning, extra={"host": service.host})
    if service.workers > 1:
        _serve_by_workers(setup, engines, security)
        return
    running = Service(engines, service)
    running.tracing = tracing
    server = DrainingServer(running, security)
    with listening(service.host, service.port):
        family = socket.AF_INET6 if ":" in service.host else socket.AF_INET
        listener = socket.create_server((service.host, service.port), family=family, backlog=server.config.backlog)
    scheme, metrics = "https" if security.tls else "http", None
    if service.metrics_port is not None:
        with listening(service.host, service.metrics_port):
            metrics, _ = running.metrics.listen(service.host, service.metrics_port, security.tls)
        _LOG.info("metrics", extra={"url": f"{scheme}://{service.host}:{metrics.server_port}/metrics"})
    _announce(f"{scheme}://{service.host}:{listener.getsockname()[1]}", threads, demo=service.demo)
    try:
        server.run(sockets=[listener])
    finally:
        if metrics is not None:
            metrics.shutdown()
        if tracing is not None:
            tracing.stop()
    _LOG.info("stopped")
    if running.failure is not None:
        raise running.failure


def _optional(service: ServiceOptions) -> Tracing | None:
    """Import what only some services need, and return the tracing if it is wanted."""
    if service.grpc_port is not None:
        with requires_extra("grpc"):
            import sdcompress.serving.grpc.server  # noqa: F401
    if not service.tracing:
        return None
    from sdcompress.serving.tracing import start_tracing

    with requires_extra("otel"):
        return start_tracing()


def _serve_by_workers(setup: ServiceSetup, engines: dict[str, CascadeEngine], security: Security) -> None:
    from sdcompress.serving.workers import Workers, shared_port

    for opened in engines.values():  # only to refuse here what every worker would refuse
        opened.stepwise()
    engines.clear()
    service, engine = setup.service, setup.engine
    engine = replace(engine, threads=max(1, (engine.threads or 1) // service.workers))
    with shared_port(service.host, service.port) as reserved:  # it does not listen: the workers do
        service = replace(service, port=reserved.getsockname()[1])
        scheme = "https" if security.tls else "http"
        _announce(f"{scheme}://{service.host}:{service.port}", engine.threads or 1, demo=False)
        Workers(replace(setup, engine=engine, service=service)).run(security.tls)
    _LOG.info("stopped")


def _announce(address: str, threads: int, *, demo: bool) -> None:
    _LOG.info("listening", extra={"url": f"{address}/v2", "threads": threads})
    if demo:
        open_page(f"{address}/")


def _named(artifacts: Artifacts) -> dict[str, Path | str]:
    named: dict[str, Path | str] = {}
    for each in artifacts:
        name, folder = each if isinstance(each, tuple) else (Path(each).resolve().name, each)
        if name in named or not name or "/" in name or len(name) > _MOST_NAME:
            raise UsageError(
                f"Two artifacts are called '{name}'." if name in named else f"An artifact is called '{brief(name)}'.",
                allowed="names that are all different, not empty and without a slash",
                next_step="give it another name: NAME=FOLDER",
            )
        named[name] = folder
    if not named:
        raise UsageError("There is no artifact to serve.", next_step="name the folder of one")
    return named
