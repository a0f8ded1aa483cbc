"""Say how a service runs: addresses, bounds and limits."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from sdcompress.errors import UsageError

__all__ = ["OnDrift", "ServiceOptions"]

OnDrift = Literal["fall-back", "report", "ignore"]


@dataclass(frozen=True)
class ServiceOptions:
    """How a service runs. All times are in seconds.

    Attributes:
        host: address that it listens on; the default lets only this machine in.
        port: of the protocol; 0 chooses a free one.
        grpc_port: of the protocol over gRPC, on the same address; 0 chooses a free one, None: no gRPC.
        metrics_port: of the metrics, on the same address; 0 chooses a free one, None: no metrics.
        latency_bound: within which every request is to be answered once its body is there; a queue too long for that
            refuses new ones.
        timeout: after which a request is given up; also of a body on its way.
        queue_rows: rows that wait or run at once, for each model; likewise raw examples that wait for preparation.
        request_rows: most rows of one request.
        batch_rows: most rows of one batch.
        body_bytes: largest body of a request, before and after decompression.
        memory_for_bodies: bytes of the bodies of all requests that are not answered yet.
        connections: open at once over HTTP; over gRPC, requests at once.
        versions: of each model that stay in memory: the one that serves, and those before it, for rollbacks.
        control_port: of loading, rolling back and unloading models, on 127.0.0.1 whatever the host is; 0 chooses a free
            one, None: no such port.
        decoded_bytes: most memory of one raw example once it is decoded.
        drain_delay: between the signal to stop, from which on the service says that it is not ready, and the end of new
            connections; for load balancers that look every few seconds.
        drain_timeout: longest wait for accepted requests after that.
        log_requests: write a line for every request.
        on_drift: what happens when live data is no longer what the certificate was made for. "fall-back": every row
            runs through the whole network until an operator resets it. "report": the log, the metrics and the responses
            say so. "ignore": nobody looks. Only models whose certificate covers what runs are watched.
        audit_share: share of their rows that also run to the last exit when there is time; 0: none.
        brown_out: step down to certified levels that allow a larger drop before requests are refused.
        api_key_file: text file with a key a line, of which clients send one; None: they need none.
        tls_cert: PEM file, the certificate of the service; None: no TLS.
        tls_key: PEM file, its private key.
        client_ca: PEM file, certificates of the authorities that sign those of clients; None: they need none.
        tracing: send spans of requests to OpenTelemetry, as the environment variables ``OTEL_...`` say.
        workers: processes that serve the same port, each with its own queue and limits and its share of the threads.
        demo: serve a page for trying the models, and open it where there is a display.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = None
    metrics_port: int | None = 8002
    latency_bound: float = 1.0
    timeout: float = 30.0
    queue_rows: int = 1024
    request_rows: int = 256
    batch_rows: int = 32
    body_bytes: int = 64 * 2**20
    memory_for_bodies: int = 2**30
    connections: int = 1024
    versions: int = 2
    control_port: int | None = None
    decoded_bytes: int = 256 * 2**20
    drain_delay: float = 0.0
    drain_timeout: float = 30.0
    log_requests: bool = False
    on_drift: OnDrift = "fall-back"
    audit_share: float = 0.01
    brown_out: bool = False
    api_key_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None
    tracing: bool = False
    workers: int = 1
    demo: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers without a meaning.

        Raises:
            UsageError: names the first.
        """
        self._check_tls()
        self._check_drift()
        least = dict.fromkeys(("port", "grpc_port", "metrics_port", "control_port", "drain_delay", "audit_share"), 0)
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if isinstance(value, bool | str | Path) or value is None:
                continue
            if value < least.get(name, 0) or (value == 0 and name not in least):
                raise UsageError(
                    f"{name} is {value}.",
                    allowed="0 or more" if name in least else "above 0",
                    next_step="choose another number",
                )
        self._check_workers()
        if self.memory_for_bodies < self.body_bytes:
            raise UsageError(
                f"A body may have {self.body_bytes:,} bytes, and all of them {self.memory_for_bodies:,}.",
                allowed="at least the memory of one body",
                next_step="raise memory_for_bodies, or lower body_bytes",
            )

    def _check_workers(self) -> None:
        if self.workers < 2:
            return
        found = {
            "the demo page": self.demo,
            "a control port": self.control_port is not None,
            "any free port for gRPC": self.grpc_port == 0,
            # the workers share their ports, so that nothing else would refuse this
            f"the port {self.port} for both protocols": self.grpc_port == self.port,
        }
        if what := next((what for what, is_so in found.items() if is_so), None):
            raise UsageError(
                f"There are {self.workers} workers, and {what}.",
                allowed="the demo page or a control port with one worker; a port of gRPC alone that all workers share",
                next_step="leave --workers out, or choose a port for gRPC; SIGHUP loads new versions in all workers",
            )

    def url(self, port: int, path: str = "") -> str:
        """Return the URL of a path on one of the ports."""
        host = f"[{self.host}]" if ":" in self.host else self.host  # IPv6
        return f"{'https' if self.tls_cert else 'http'}://{host}:{port}{path}"

    def _check_tls(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None) or (self.client_ca and not self.tls_cert):
            given = [name for name in ("tls_cert", "tls_key", "client_ca") if getattr(self, name) is not None]
            raise UsageError(
                f"Of the files of TLS there is only {' and '.join(given)}.",
                allowed="tls_cert with tls_key, and client_ca beside them",
                next_step="name the certificate of the service and its private key",
            )

    def _check_drift(self) -> None:
        if self.audit_share > 1:
            raise UsageError(
                f"audit_share is {self.audit_share}.", allowed="0 to 1", next_step="choose another share, e.g. 0.01"
            )
        if self.on_drift not in get_args(OnDrift):
            raise UsageError(
                f"on_drift is '{self.on_drift}'.",
                allowed=", ".join(get_args(OnDrift)),
                next_step="choose one of these",
            )
