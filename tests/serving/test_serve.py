"""The service as a process: standard clients, metrics on a port of their own, and a stop that loses nothing."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

import sdcompress
from sdcompress.errors import ArtifactError, SetupError, UsageError
from sdcompress.runtime.open import open_cascade, open_engine
from sdcompress.serving.options import ServiceOptions
from sdcompress.serving.server import DrainingServer
from sdcompress.serving.service import Service

COMMAND = [sys.executable, "-c", "from sdcompress.cli import main; main()", "serve", "--threads", "1"]
CLIENTS, EACH = 4, 400
PATIENCE_S = 60


@dataclass
class Process:
    """A running service, and the file of its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        """All whole lines so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def line(self, message: str) -> dict[str, Any]:
        """Wait for a message."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for line in self.lines():
                if line["message"] == message:
                    return line
            time.sleep(0.02)
        raise AssertionError(f"there is no '{message}': {self.log.read_text()}")


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the command on free ports."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str) -> Process:
        command = [*COMMAND, "--port", "0", "--metrics-port", "0", *arguments]
        log = tmp_path / "service.log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(command, stderr=stderr, env={**os.environ, "OMP_NUM_THREADS": "1"})
        running.append(process)
        return Process(process, log)

    yield begin
    for process in running:
        process.kill()
        process.wait()


def test_a_real_client_asks_and_sigterm_loses_no_accepted_request(
    start: Start, tiny_artifact: Callable[..., Path]
) -> None:
    triton = pytest.importorskip("tritonclient.http")
    folder = tiny_artifact(policy=(0.7, 0.6))
    service = start(f"tiny={folder}", "--log-requests")
    metrics = service.line("metrics")["url"]
    url = service.line("listening")["url"]
    service.line("model ready")
    with urllib.request.urlopen(metrics) as read:
        assert b"sdcompress_queue_rows" in read.read()
    _as_triton(triton, url.removeprefix("http://").removesuffix("/v2"), folder)
    _drain(service, url)


def test_sighup_serves_what_the_folder_holds_now_and_a_rollback_undoes_it(
    start: Start, tiny_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    link = tmp_path / "served"
    link.symlink_to(tiny_artifact(policy=(0.7, 0.6), name="old"))
    service = start(f"tiny={link}", "--control-port", "0", "--previous", f"tiny={tiny_artifact(name='older')}")
    control = service.line("control")["url"]
    assert control.startswith("http://127.0.0.1:")
    service.line("model ready")
    link.unlink()
    link.symlink_to(tiny_artifact(policy=(0.9, 0.8), name="new"))
    service.process.send_signal(signal.SIGHUP)
    loaded = service.line("version")
    assert (loaded["outcome"], loaded["model"]) == ("loaded", "tiny")
    url = service.line("listening")["url"]
    assert httpx.get(f"{url}/models/tiny").json()["versions"][0] == loaded["version"]
    back = httpx.post(f"{control}/models/tiny/rollback").json()["version"]
    assert httpx.get(f"{url}/models/tiny").json()["versions"] == [back, loaded["version"]]
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(timeout=PATIENCE_S) == 0


def _as_triton(triton: Any, address: str, folder: Path) -> None:
    """All calls of the protocol by NVIDIA's client."""
    client = triton.InferenceServerClient(address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.get_server_metadata()["name"] == "sdcompress"
    assert client.get_model_metadata("tiny")["inputs"][1]["name"] == "input"
    images = np.random.default_rng(0).normal(size=(9, 1, 4, 4)).astype(np.float32)
    expected = open_engine(folder)(images)
    for binary in (True, False):
        tensor = triton.InferInput("input", list(images.shape), "FP32")
        tensor.set_data_from_numpy(images, binary_data=binary)
        wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("outputs", "exit_index", "answer")]
        for compression in (None, "gzip", "deflate"):
            result = client.infer(
                "tiny", [tensor], outputs=wanted, request_id="7", request_compression_algorithm=compression
            )
            np.testing.assert_allclose(result.as_numpy("outputs"), expected.outputs, rtol=1e-5, atol=1e-6)
            assert result.as_numpy("exit_index").tolist() == expected.exit_index.tolist()
            assert result.as_numpy("answer").shape == (9,)
            assert result.get_response()["id"] == "7"
    limited = client.infer("tiny", [tensor], parameters={"max_exit": "exit1"})
    assert limited.as_numpy("exit_index").tolist() == [0] * 9
    pixels = np.zeros((2, 5, 5, 1), np.uint8)
    tensor = triton.InferInput("raw", [2, 5, 5, 1], "UINT8")
    tensor.set_data_from_numpy(pixels)
    assert client.infer("tiny", [tensor]).as_numpy("outputs").shape == (2, 3)
    wrong = triton.InferInput("input", [1, 1, 4, 5], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 1, 4, 5), np.float32))
    with pytest.raises(triton.InferenceServerException, match=r"has the shape \[1, 1, 4, 5\]"):
        client.infer("tiny", [wrong])
    client.close()


def _drain(service: Process, url: str) -> None:
    """SIGTERM while clients ask without a pause: every request is answered, or told that it was not accepted."""
    codes: list[int] = []

    def ask() -> None:
        body = {"inputs": [{"name": "input", "shape": [1, 1, 4, 4], "datatype": "FP32", "data": [0.5] * 16}]}
        with httpx.Client(timeout=30) as client:
            for _ in range(EACH):
                try:
                    response = client.post(f"{url}/models/tiny/infer", json=body)
                except httpx.TransportError:  # the port or an idle connection was closed: nothing was accepted
                    break
                codes.append(response.status_code)
                if response.status_code != 200:
                    break

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    while len(codes) < 10:
        time.sleep(0.001)
    service.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert service.process.wait(timeout=PATIENCE_S) == 0
    assert set(codes) <= {200, 503}
    lines = service.lines()
    stops = [line["message"] for line in lines if line["message"] in {"draining", "stopped"}]
    assert stops == ["draining", "stopped"]
    # what the service answered, its clients got
    answered = sum(line["message"] == "request" and line["status"] == 200 and line["rows"] == 1 for line in lines)
    assert answered == codes.count(200)


def test_sigterm_loses_no_accepted_call_of_grpc(start: Start, tiny_artifact: Callable[..., Path]) -> None:
    service = start(f"tiny={tiny_artifact(policy=(0.7, 0.6))}", "--grpc-port", "0", "--log-requests")
    address = service.line("listening for gRPC")["address"]
    service.line("model ready")
    tensor = {"name": "input", "shape": [1, 1, 4, 4], "datatype": "FP32", "contents": {"fp32_contents": [0.5] * 16}}
    message = service_pb2.ModelInferRequest(model_name="tiny", inputs=[tensor]).SerializeToString()
    codes: list[grpc.StatusCode] = []

    def ask() -> None:
        with grpc.insecure_channel(address) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            for _ in range(EACH):
                codes.append(call.future(message, timeout=30).code())  # waits
                if codes[-1] != grpc.StatusCode.OK:
                    break

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    while len(codes) < 10:
        time.sleep(0.001)
    service.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert service.process.wait(timeout=PATIENCE_S) == 0
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    answered = sum(line["message"] == "request" and line["status"] == 200 for line in service.lines())
    assert answered == codes.count(grpc.StatusCode.OK)


def test_a_port_of_grpc_that_is_taken_is_an_error(tiny_artifact: Callable[..., Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = ServiceOptions(port=0, grpc_port=port, metrics_port=None)
        with pytest.raises(SetupError, match=f"Nothing can listen on 127.0.0.1, port {port}"):
            sdcompress.serve([tiny_artifact()], service=options)


def test_the_command_serves_the_demo_page_and_says_where(start: Start, tiny_artifact: Callable[..., Path]) -> None:
    service = start(f"tiny={tiny_artifact()}", "--demo")
    page = service.line("demo")["url"]
    assert page == service.line("listening")["url"].removesuffix("v2")
    with urllib.request.urlopen(page) as read:
        assert b"<title>sdcompress demo</title>" in read.read()


def test_what_cannot_be_served_is_refused_before_a_port_is_opened(
    tiny_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tiny_artifact()
    with pytest.raises(UsageError, match="Two artifacts are called 'cascade'"):
        sdcompress.serve([folder, folder])
    with pytest.raises(UsageError, match="An artifact is called 'a/b'"):
        sdcompress.serve([("a/b", folder)])
    with pytest.raises(UsageError, match="previous version of 'other', which is not served"):
        sdcompress.serve([("tiny", folder)], previous=[("other", folder)])
    with pytest.raises(UsageError, match="no artifact"):
        sdcompress.serve([])
    with pytest.raises(ArtifactError):
        sdcompress.serve([tmp_path / "nothing"])
    with pytest.raises(SetupError, match=r"Nothing can listen on 203\.0\.113\.1, port 1"):
        sdcompress.serve([folder], service=ServiceOptions(host="203.0.113.1", port=1))
    with pytest.raises(UsageError, match="latency_bound is 0"):
        ServiceOptions(latency_bound=0)


def test_a_signal_within_the_write_of_a_log_line_still_drains(tiny_artifact: Callable[..., Path]) -> None:
    class Busy(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("reentrant call")

    server, busy = DrainingServer(Service({"tiny": open_cascade(tiny_artifact())})), Busy()
    logger = logging.getLogger("sdcompress.serving.server")
    logger.addHandler(busy)
    try:
        server.handle_exit(signal.SIGTERM, None)
    finally:
        logger.removeHandler(busy)
    assert server._service.draining
    assert not server.should_exit


def test_a_stop_during_the_warm_up_waits_for_it(
    tiny_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_artifact()
    service = Service({"one": open_cascade(folder), "two": open_cascade(folder)})
    begun, free = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        assert free.wait(PATIENCE_S)

    monkeypatch.setattr(service.models["one"], "warm_up", slow)
    warming = service.start()
    assert begun.wait(PATIENCE_S)
    stopping = threading.Thread(target=service.stop)
    stopping.start()
    while not service.closed:
        time.sleep(0.001)
    free.set()
    stopping.join()
    assert not warming.is_alive()
    assert not service.models["two"].ready


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "http://127.0.0.1:80/v2"), ("::1", "http://[::1]:80/v2")])
def test_urls_have_ipv6_addresses_in_brackets(host: str, url: str) -> None:
    assert ServiceOptions(host=host).url(80, "/v2") == url
