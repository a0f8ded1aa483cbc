"""Several processes on one port: one that is killed costs only what it held."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import httpx
import pytest

from sdcompress.errors import SetupError, UsageError
from sdcompress.options import EngineOptions
from sdcompress.serving import workers as room
from sdcompress.serving.options import ServiceOptions
from sdcompress.serving.setup import ServiceSetup
from sdcompress.serving.workers import Workers, shared_port

PATIENCE_S = 90
CLIENTS = 4
BODY = {"inputs": [{"name": "input", "shape": [1, 1, 4, 4], "datatype": "FP32", "data": [0.5] * 16}]}


def lines(log: Path, message: str, count: int = 1) -> list[dict[str, Any]]:
    """Wait for so many log lines of a message."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        whole = [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        if len(fitting := [line for line in whole if line["message"] == message]) >= count:
            return fitting
        time.sleep(0.05)
    raise AssertionError(f"there are no {count} lines '{message}': {log.read_text()}")


def ended(pid: int) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_a_worker_that_warms_up_loads_again_once_it_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have opened the version before: the others would serve the new one beside it."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *arguments: sent.append(arguments))
    parents, theirs = multiprocessing.Pipe()
    started = SimpleNamespace(pid=7, is_alive=lambda: True, start=lambda: None)
    context = SimpleNamespace(Pipe=lambda: (parents, Mock()), Process=lambda **_: started)
    monkeypatch.setattr(room, "get_context", lambda _: context)
    workers, setup = Workers(Mock()), Mock()
    process = room._Process(0, setup)
    workers._processes.append(process)
    workers._told_to_load(signal.SIGHUP, None)
    assert sent == []  # it would end a process that does not listen yet
    theirs.send_bytes(b"ready")
    for _ in range(2):
        process.look()
        assert sent == [(7, signal.SIGHUP)]
    workers._told_to_load(signal.SIGHUP, None)
    assert sent == [(7, signal.SIGHUP)] * 2


def test_a_worker_that_is_killed_costs_only_its_own_requests_and_is_replaced(
    tiny_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    log = tmp_path / "service.log"
    command = [sys.executable, "-c", "from sdcompress.cli import main; main()", "serve", f"tiny={tiny_artifact()}"]
    options = ["--threads", "2", "--port", "0", "--metrics-port", "0", "--workers", "2"]
    with log.open("wb") as stderr:
        parent = subprocess.Popen([*command, *options], stderr=stderr, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        lines(log, "all workers ready")
        url, metrics = lines(log, "listening")[0]["url"], lines(log, "metrics")[0]["url"]
        killed, failed, answered = lines(log, "worker ready")[0]["pid"], [0] * CLIENTS, [0] * CLIENTS
        stop = threading.Event()

        def ask(at: int) -> None:
            while not stop.is_set():
                try:
                    with httpx.Client(timeout=30) as client:  # its connection goes to any of the two
                        answered[at] += client.post(f"{url}/models/tiny/infer", json=BODY).status_code == 200
                except httpx.TransportError:  # noqa: PERF203 - each request is on its own
                    failed[at] += 1

        threads = [threading.Thread(target=ask, args=(at,)) for at in range(CLIENTS)]
        for thread in threads:
            thread.start()
        while min(answered) < 5:
            time.sleep(0.01)
        os.kill(killed, signal.SIGKILL)
        assert lines(log, "a worker ended")[0]["code"] == -signal.SIGKILL
        lines(log, "worker ready", 3)
        before = sum(answered)
        while sum(answered) < before + 20:
            time.sleep(0.01)
        stop.set()
        for thread in threads:
            thread.join()
        assert max(failed) <= 1, "a client loses at most the request that was under way"
        with urllib.request.urlopen(metrics) as read:
            text = read.read().decode()
        assert "sdcompress_worker_restarts_total 1.0" in text
        for worker in "01":
            assert f'sdcompress_queue_rows{{model="tiny",worker="{worker}"}} 0.0' in text
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(PATIENCE_S) == 0
        lines(log, "stopped")
        assert all(ended(line["pid"]) for line in lines(log, "worker ready", 3))
    finally:
        parent.kill()
        parent.wait()


def test_workers_load_new_versions_and_end_with_their_parent(
    tiny_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    log, link = tmp_path / "service.log", tmp_path / "served"
    link.symlink_to(tiny_artifact(policy=(0.7, 0.6), name="old"))
    command = [sys.executable, "-c", "from sdcompress.cli import main; main()", "serve", str(link)]
    with log.open("wb") as stderr:
        options = ["--threads", "1", "--port", "0", "--no-metrics", "--workers", "2"]
        parent = subprocess.Popen([*command, *options], stderr=stderr)
    lines(log, "all workers ready")
    link.unlink()
    link.symlink_to(tiny_artifact(policy=(0.9, 0.8), name="new"))
    parent.send_signal(signal.SIGHUP)
    assert [line["outcome"] for line in lines(log, "version", 2)] == ["loaded"] * 2
    parent.kill()
    parent.wait()
    assert all(ended(line["pid"]) for line in lines(log, "worker ready", 2))


def test_what_workers_cannot_share_is_refused() -> None:
    with pytest.raises(UsageError, match="There are 2 workers, and the demo page"):
        ServiceOptions(workers=2, demo=True)
    with pytest.raises(UsageError, match="a control port"):
        ServiceOptions(workers=2, control_port=8003)
    with pytest.raises(UsageError, match="any free port for gRPC"):
        ServiceOptions(workers=2, grpc_port=0)
    with pytest.raises(UsageError, match="the port 8000 for both protocols"):
        ServiceOptions(workers=2, grpc_port=8000)


def test_a_process_that_begins_while_the_signal_comes_is_told_to_stop_too() -> None:
    workers = Workers(ServiceSetup({}, EngineOptions(), ServiceOptions()))
    told, late = Mock(told=True), Mock(told=False)
    workers._signals, workers._processes = 1, [told, late]
    workers._stop()
    told.signal.assert_not_called()
    late.signal.assert_called_once_with()
    late.process.join.assert_called_once_with()


def test_a_port_is_shared_with_own_workers_alone() -> None:
    with shared_port("127.0.0.1", 0) as mine:
        port = mine.getsockname()[1]
        mine.listen()
        with shared_port("127.0.0.1", port):
            pass
        with pytest.raises(SetupError, match=f"Nothing can listen on 127.0.0.1, port {port}"):
            shared_port("127.0.0.1", port, first=True)
