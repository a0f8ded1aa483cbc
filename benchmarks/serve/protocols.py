"""Measure a request over HTTP and gRPC, and what tracing costs it; about two minutes.

    PYTHONPATH=. python benchmarks/serve/protocols.py

One request at a time, by a network without work; the three servers are asked in turn. The processor time of a server is
what a busy machine changes least.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from measure import Client
from network import inputs_of, write_cascade
from process import Server

sys.path.append(str(Path(__file__).parents[1] / "speed"))
from record import Record

from sdcompress.serving.grpc.open_inference_pb2 import InferTensorContents, ModelInferRequest

HERE = Path(__file__).resolve().parent
ROUND = 100  # requests
METHOD = "/inference.GRPCInferenceService/ModelInfer"
TRACINGS = {"off": [], "not sampled": ["--tracing"], "sampled": ["--tracing"]}


def server(folder: Path, tracing: str, collector: int) -> Server:
    """Return a server of both protocols."""
    sampler = "parentbased_always_on" if tracing == "sampled" else "parentbased_always_off"
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}", "OTEL_TRACES_SAMPLER": sampler}
    return Server(folder, "--grpc-port", "0", *TRACINGS[tracing], variables=variables)


def by_grpc(port: int, inputs: np.ndarray, *, raw: bool) -> Callable[[], None]:
    """Return a call that sends one prepared message."""
    tensor = ModelInferRequest.InferInputTensor(name="input", datatype="FP32", shape=inputs.shape)
    if not raw:
        tensor.contents.MergeFrom(InferTensorContents(fp32_contents=inputs.ravel().tolist()))
    message = ModelInferRequest(
        model_name="net",
        inputs=[tensor],
        outputs=[ModelInferRequest.InferRequestedOutputTensor(name="outputs")],
        raw_input_contents=[inputs.tobytes()] if raw else (),
    ).SerializeToString()
    call = grpc.insecure_channel(f"127.0.0.1:{port}").unary_unary(METHOD)
    return lambda: call(message)


def measured(folder: Path, side: int, seconds: float, collector: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a request for each tracing and protocol: p50, and of the server's processor."""
    inputs, found = inputs_of([2], side), dict[str, dict[str, float]]()
    servers = {name: server(folder, name, collector) for name in TRACINGS}
    calls = {
        f"{form}, tracing {name}": (one, call)
        for name, one in servers.items()
        for form, call in (
            ("http", Client(one.port, inputs)),
            ("grpc raw", by_grpc(one.grpc_port, inputs, raw=True)),
            *((("grpc typed", by_grpc(one.grpc_port, inputs, raw=False)),) if name == "off" else ()),
        )
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    spent = dict.fromkeys(calls, 0.0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, (one, call) in calls.items():
            before = one.processor_s()
            for _ in range(ROUND):
                begin = time.perf_counter()
                call()
                times[name].append(1000 * (time.perf_counter() - begin))
            spent[name] += one.processor_s() - before
    for one in servers.values():
        one.stop()
    for name, each in times.items():
        processor = round(1000 * spent[name] / len(each), 3)
        found[name] = {"p50_ms": round(float(np.median(each)), 3), "processor_ms": processor, "requests": len(each)}
    return found


class Collector(BaseHTTPRequestHandler):
    """Takes spans, and forgets them."""

    def do_POST(self) -> None:
        """Answer 200."""
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Write nothing."""


def main() -> None:
    """Measure, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0, help="for each payload")
    options = parser.parse_args()
    collector = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    record, figures = Record(HERE), dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        for name, side in (("tiny", 8), ("image", 224)):
            artifact = write_cascade(Path(folder) / name, side=side, products=0)
            figures[name] = measured(artifact, side, options.seconds, collector.server_port)
    record.write(figures, seconds=options.seconds)


if __name__ == "__main__":
    main()
