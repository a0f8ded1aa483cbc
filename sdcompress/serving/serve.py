"""serve: answer requests over HTTP until the process is told to stop."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
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
    from sdcompress.serving.security import Security, Tls
    from sdcompress.serving.service import Service
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
    previous: Iterable[tuple[str, Path | str]] = (),
    require_signature: Path | str | None = None,
) -> None:
    """Serve artifacts by the Open Inference Protocol until SIGTERM or SIGINT; logs go to stderr.

    Args:
        artifacts: folders, each alone, which takes its name, or as (name, folder).
        options: of the engines; default threads: those that other work leaves free.
        service: addresses, bounds, limits.
        previous: versions before some of them, as (name, folder), which a rollback brings back; the latest first.
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

    service = service or ServiceOptions()
    tracing = _optional(service)
    security = load_security(service)
    threads = options.threads if options.threads is not None else default_threads().threads
    named = _named(artifacts)
    setup = ServiceSetup(
        named,
        EngineOptions(options.backend, threads, options.device, options.allow_uncertified),
        service,
        require_signature,
        _checked(previous, named),
    )
    log_to_stderr()
    running = setup.open()
    running.tracing = tracing
    if warning := exposure(service.host, security):
        _LOG.warning(warning, extra={"host": service.host})
    if service.workers > 1:
        del running  # it was opened only to refuse here what every worker would refuse
        _serve_by_workers(setup, security)
        return
    server = DrainingServer(running, security)
    with listening(service.host, service.port):
        family = socket.AF_INET6 if ":" in service.host else socket.AF_INET
        listener = socket.create_server((service.host, service.port), family=family, backlog=server.config.backlog)
    with _side_ports(running, security.tls):
        _announce(service.url(listener.getsockname()[1]), threads, demo=service.demo)
        server.run(sockets=[listener])
    _LOG.info("stopped")
    if running.failure is not None:
        raise running.failure


@contextmanager
def _side_ports(running: Service, tls: Tls | None) -> Iterator[None]:
    """Serve metrics, and the control of versions, each on a thread; end them and the tracing."""
    from sdcompress.serving.control import HOST, ControlServer
    from sdcompress.serving.metrics_server import MetricsServer
    from sdcompress.serving.server import listening

    options = running.options
    with ExitStack() as ends:
        if running.tracing is not None:
            ends.callback(running.tracing.stop)
        if options.metrics_port is not None:
            with listening(options.host, options.metrics_port):
                metrics = MetricsServer(running.metrics.registry, options.host, options.metrics_port, tls)
            ends.callback(metrics.shutdown)
            _LOG.info("metrics", extra={"url": options.url(metrics.server_port, "/metrics")})
        if options.control_port is not None:
            with listening(HOST, options.control_port):
                control = ControlServer(running.repository, options.control_port)
            control.start()
            ends.callback(control.stop)
            _LOG.info("control", extra={"url": f"http://{HOST}:{control.port}/v2/repository"})
        yield


def _checked(previous: Iterable[tuple[str, Path | str]], served: Iterable[str]) -> tuple[tuple[str, Path | str], ...]:
    checked, names = tuple(previous), [*served]
    if unknown := next((name for name, _ in checked if name not in names), None):
        raise UsageError(
            f"There is a previous version of '{brief(unknown)}', which is not served.",
            allowed=", ".join(names),
            next_step="give it the name of one: NAME=FOLDER",
        )
    return checked


def _optional(service: ServiceOptions) -> Tracing | None:
    """Import what only some services need, and return the tracing if it is wanted."""
    if service.grpc_port is not None:
        with requires_extra("grpc"):
            import sdcompress.serving.grpc.server  # noqa: F401
    if not service.tracing:
        return None
    from sdcompress.serving.tracing import start_tracing

    with requires_extra("otel"):
        tracing = start_tracing()
    if service.workers > 1:  # each of them starts its own
        tracing.stop()
        return None
    return tracing


def _serve_by_workers(setup: ServiceSetup, security: Security) -> None:
    from sdcompress.serving.workers import Workers, shared_port

    service, engine = setup.service, setup.engine
    engine = replace(engine, threads=max(1, (engine.threads or 1) // service.workers))
    with shared_port(service.host, service.port, first=True) as reserved:  # it does not listen: the workers do
        service = replace(service, port=reserved.getsockname()[1])
        _announce(service.url(service.port), engine.threads or 1, demo=False)
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
