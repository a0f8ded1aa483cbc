"""Trace requests as OpenTelemetry spans, where a service is told to.

A request only notes times while it runs; its spans are made once it has ended, from these notes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import time_ns
from typing import TYPE_CHECKING, Literal

import sdcompress
from sdcompress.errors import SetupError, brief
from sdcompress.serving.call import StageRun
from sdcompress.serving.refusals import Refusal

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

    from sdcompress.serving.job import Job
    from sdcompress.serving.model import ServedModel

__all__ = ["Trace", "Tracing", "start_tracing"]

_PROTOCOL, _PROTOCOLS = "http/protobuf", ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_MOST_NAMED = 16  # exits in an attribute
_Protocol = Literal["http", "grpc"]
_NAMES = {"http": "POST /v2/models/{model}/infer", "grpc": "inference.GRPCInferenceService/ModelInfer"}


@dataclass
class Trace:
    """The notes of one request, all times in nanoseconds since 1970.

    Attributes:
        tracing: makes its spans.
        protocol: by which it came.
        span: of the request.
        since: when the phase that runs now began.
        phases: name, start and end of those that have ended.
        runs: of its rows at the stages.
    """

    tracing: Tracing
    protocol: _Protocol
    span: Span
    since: int
    phases: list[tuple[str, int, int]] = field(default_factory=list)
    runs: list[StageRun] = field(default_factory=list)

    def ends(self, phase: str) -> None:
        """Note that a phase ends now, and the next begins."""
        now = time_ns()
        self.phases.append((phase, self.since, now))
        self.since = now

    def end(self, model: ServedModel, ended: Job | Refusal) -> None:
        """Make the spans: the request has ended."""
        self.tracing.end(self, model, ended)


class Tracing:
    """Makes the spans of a service.

    Args:
        provider: of OpenTelemetry's SDK.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import propagate, trace

        self._provider, self._trace, self._extract = provider, trace, propagate.extract
        self._tracer = provider.get_tracer("sdcompress.serving", sdcompress.__version__)

    def begin(self, protocol: _Protocol, model: ServedModel, headers: Mapping[str, str], start: int) -> Trace | None:
        """Return the trace of a request; None: it is not sampled.

        Args:
            protocol: of the request.
            model: that is asked.
            headers: with lower-case names, of which ``traceparent`` names the span of the client.
            start: of the request, in nanoseconds since 1970.
        """
        attributes = {"sdcompress.model": model.name, "sdcompress.model_version": model.version}
        if protocol == "http":
            attributes |= {"http.request.method": "POST", "http.route": _NAMES["http"].partition(" ")[2]}
        else:
            service, _, method = _NAMES["grpc"].partition("/")
            attributes |= {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        context, kind = self._extract(headers), self._trace.SpanKind.SERVER
        span = self._tracer.start_span(_NAMES[protocol], context, kind, attributes, start_time=start)
        return Trace(self, protocol, span, start) if span.is_recording() else None

    def end(self, trace: Trace, model: ServedModel, ended: Job | Refusal) -> None:
        """Make the spans of a request that has ended."""
        now, span = time_ns(), trace.span
        context = self._trace.set_span_in_context(span)
        for name, start, end in trace.phases:
            if name == "run" and trace.runs:
                name, end = "queue", min(run.start for run in trace.runs)  # noqa: PLW2901 - the rest of it are the stages
            self._tracer.start_span(name, context, start_time=start).end(end)
        for run in trace.runs:
            attributes = {"sdcompress.rows": run.rows, "sdcompress.batch_rows": run.batch_rows}
            name = f"stage {model.exits[run.stage]}"
            self._tracer.start_span(name, context, attributes=attributes, start_time=run.start).end(run.end)
        span.set_attribute(*_status(trace.protocol, ended))
        if isinstance(ended, Refusal):
            span.set_attribute("sdcompress.outcome", ended.outcome)
            if ended.http >= 500:
                span.set_status(self._trace.StatusCode.ERROR, ended.message)
        else:
            self._tracer.start_span("respond", context, start_time=trace.since).end(now)
            exits = [model.exits[at] for at in ended.exit_index.tolist()[:_MOST_NAMED]]
            span.set_attributes({"sdcompress.outcome": "ok", "sdcompress.rows": ended.rows, "sdcompress.exits": exits})
        span.end(now)

    def stop(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()


def _status(protocol: _Protocol, ended: Job | Refusal) -> tuple[str, int]:
    """Return the attribute that says how a request ended, as the conventions of OpenTelemetry name it."""
    if protocol == "http":
        return "http.response.status_code", ended.http if isinstance(ended, Refusal) else 200
    from grpc import StatusCode

    return "rpc.grpc.status_code", StatusCode[ended.grpc if isinstance(ended, Refusal) else "OK"].value[0]


def start_tracing() -> Tracing:
    """Send spans by OTLP over HTTP, as the environment variables ``OTEL_...`` say.

    Raises:
        ImportError: if the packages of the extra 'otel' are not installed.
        SetupError: if the variables ask for another protocol.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    protocol = next((os.environ[name] for name in _PROTOCOLS if os.environ.get(name)), _PROTOCOL)
    if protocol != _PROTOCOL:
        raise SetupError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is '{brief(protocol)}'.",
            allowed=_PROTOCOL,
            next_step="set it so, and OTEL_EXPORTER_OTLP_ENDPOINT to the collector's port for HTTP, usually 4318",
        )
    named = SERVICE_NAME in OTELResourceDetector().detect().attributes
    provider = TracerProvider(resource=Resource.create({} if named else {SERVICE_NAME: "sdcompress"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
