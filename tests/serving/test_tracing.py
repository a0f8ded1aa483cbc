"""The spans of requests, by the in-memory exporter of OpenTelemetry's SDK, and as they are sent to a collector."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from sdcompress.errors import SetupError
from sdcompress.serving.grpc.open_inference_pb2 import InferTensorContents, ModelInferRequest
from sdcompress.serving.tracing import Tracing, start_tracing

INFER = "/v2/models/tiny/infer"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def body(rows: int = 1, **changes: Any) -> dict[str, Any]:
    data = np.random.default_rng(0).normal(size=rows * 16).tolist()
    return {"inputs": [{"name": "input", "shape": [rows, 1, 4, 4], "datatype": "FP32", "data": data}]} | changes


class Spans:
    """What a service has sent."""

    def __init__(self) -> None:
        self._exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider)

    def none(self) -> bool:
        return not self._exporter.get_finished_spans()

    def taken(self) -> tuple[ReadableSpan, list[ReadableSpan]]:
        """The span of one request, and those in it by their start."""
        spans = self._exporter.get_finished_spans()
        self._exporter.clear()
        (root,) = [span for span in spans if span.kind == SpanKind.SERVER]
        inner = [span for span in spans if span is not root]
        assert all(span.parent is not None and span.parent.span_id == root.context.span_id for span in inner)
        return root, sorted(inner, key=lambda span: (span.start_time, span.end_time))


@pytest.fixture
def spans(client: Any) -> Spans:
    traced = Spans()
    client.service.tracing = traced.tracing
    return traced


def test_a_request_over_http_has_spans_of_its_way(client: Any, spans: Spans) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    response = client.request("POST", INFER, json=body(20), headers=headers)
    exits = next(one["data"] for one in response.json()["outputs"] if one["name"] == "exit_index")
    assert set(exits) == {0, 1, 2}
    root, inner = spans.taken()
    assert format(root.context.trace_id, "032x") == TRACE
    assert root.parent is not None
    assert format(root.parent.span_id, "016x") == PARENT
    assert root.name == "POST /v2/models/{model}/infer"
    assert [span.name for span in inner] == [
        "receive", "prepare", "queue", "stage exit1", "stage exit2", "stage final", "respond",
    ]  # fmt: skip
    assert root.start_time <= inner[0].start_time
    for before, after in pairwise(inner):
        assert before.start_time <= before.end_time <= after.start_time
    assert inner[-1].end_time == root.end_time
    # all rows run at the first stage, at each later one those that did not exit before
    rows = [span.attributes["sdcompress.rows"] for span in inner if span.name.startswith("stage")]
    assert rows == [20, 20 - exits.count(0), exits.count(2)]
    assert all(span.attributes["sdcompress.batch_rows"] == span.attributes["sdcompress.rows"] for span in inner[3:6])
    assert root.attributes["sdcompress.model"] == "tiny"
    assert root.attributes["sdcompress.outcome"] == "ok"
    assert root.attributes["http.response.status_code"] == 200
    assert root.attributes["sdcompress.exits"] == tuple(("exit1", "exit2", "final")[one] for one in exits[:16])
    assert root.status.status_code == StatusCode.UNSET


def test_a_call_over_grpc_has_the_same_spans(client: Any, spans: Spans, serve_grpc: Callable[..., str]) -> None:
    tensor = ModelInferRequest.InferInputTensor(
        name="input", shape=[1, 1, 4, 4], datatype="FP32", contents=InferTensorContents(fp32_contents=[0.1] * 16)
    )
    message = ModelInferRequest(model_name="tiny", inputs=[tensor], parameters={})
    with grpc.insecure_channel(serve_grpc(client.service)) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        call(message.SerializeToString(), metadata=(("traceparent", f"00-{TRACE}-{PARENT}-01"),), timeout=30)
        root, inner = spans.taken()
        assert root.name == "inference.GRPCInferenceService/ModelInfer"
        assert format(root.context.trace_id, "032x") == TRACE
        assert [span.name for span in inner][:4] == ["receive", "prepare", "queue", "stage exit1"]
        assert root.attributes["rpc.grpc.status_code"] == 0
        with pytest.raises(grpc.RpcError):
            call(ModelInferRequest(model_name="tiny").SerializeToString(), timeout=30)
        root, _ = spans.taken()
        assert root.attributes["rpc.grpc.status_code"] == 3
        assert "http.response.status_code" not in root.attributes
        # a client that says so is not traced
        call(message.SerializeToString(), metadata=(("traceparent", f"00-{TRACE}-{PARENT}-00"),), timeout=30)
    assert spans.none()


def test_a_refused_request_says_how_it_ended(client: Any, spans: Spans) -> None:
    client.request("POST", INFER, json=body(inputs=[]))
    root, inner = spans.taken()
    assert root.attributes["sdcompress.outcome"] == "invalid"
    assert root.attributes["http.response.status_code"] == 400
    assert root.status.status_code == StatusCode.UNSET, "the client is to blame"
    assert [span.name for span in inner] == ["receive"]
    client.service.closed = True
    client.request("POST", INFER, json=body())
    root, inner = spans.taken()
    assert root.attributes["http.response.status_code"] == 503
    assert root.status.status_code == StatusCode.ERROR


def test_a_fault_of_the_service_is_an_error_without_internals(
    client: Any, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.service.models["tiny"], "prediction", lambda _: 1 / 0)
    assert client.infer(body()).status_code == 500
    root, inner = spans.taken()
    assert root.attributes["sdcompress.outcome"] == "failed"
    assert root.status.status_code == StatusCode.ERROR
    assert "ZeroDivisionError" not in root.to_json()
    assert inner[-1].name.startswith("stage")


class Collector:
    """Takes spans as OTLP over HTTP."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    data = gzip.decompress(data)
                assert self.path == "/v1/traces"
                collector.requests.append(ExportTraceServiceRequest.FromString(data))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.server.shutdown()
    running.server.server_close()


def test_the_standard_variables_say_where_spans_go(
    client: Any, collector: Collector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server.server_port}")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    client.service.tracing = start_tracing()
    assert client.infer(body()).status_code == 200
    client.service.tracing.stop()
    (sent,) = collector.requests[0].resource_spans
    resource = {one.key: one.value.string_value for one in sent.resource.attributes}
    assert resource["service.name"] == "sdcompress"
    assert resource["deployment.environment"] == "test"
    assert {span.name for span in sent.scope_spans[0].spans} >= {"prepare", "queue", "stage exit1", "respond"}
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(SetupError, match="OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'"):
        start_tracing()
