"""Let a server answer a million requests, stop it under load, kill it under load, and give it 10,000 idle connections.

    PYTHONPATH=. python benchmarks/serve/endurance.py

The cascade is that of ``network.py``, without work. About every fiftieth request is malformed, so that refusals are
among them. It takes about 20 minutes and needs Linux, for /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from network import inputs_of, write_cascade
from process import Server

sys.path.append(str(Path(__file__).parents[1] / "speed"))
from record import Record

HERE = Path(__file__).resolve().parent
SIDE, MALFORMED_EVERY, SAMPLE_S = 2, 50, 5.0
TIMES, UNDER_LOAD_S = 5, 1.0


def requests() -> list[bytes]:
    """Whole HTTP requests: the three exits as binary data and as JSON, and a malformed one at last."""
    bodies = []
    for exit_index in range(3):
        inputs = inputs_of([exit_index], SIDE)
        tensor = {"name": "input", "shape": list(inputs.shape), "datatype": "FP32"}
        head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": inputs.nbytes}}]}).encode()
        bodies.append((b"Inference-Header-Content-Length: %d\r\n" % len(head), head + inputs.tobytes()))
        bodies.append((b"", json.dumps({"inputs": [{**tensor, "data": inputs.ravel().tolist()}]}).encode()))
    bodies.append((b"", b'{"inputs": [{"name": "input", "shape": [1, 3, 2, 2], "datatype": "FP32", "data": [NaN]}]}'))
    line = b"POST /v2/models/net/infer HTTP/1.1\r\nHost: a\r\n%sContent-Length: %d\r\n\r\n%s"
    return [line % (header, len(body), body) for header, body in bodies]


class Load:
    """Connections that each send one request after the other.

    Attributes:
        answered: whole responses by status.
        lost: requests whose connection ended before the response.
        seconds: of the latest requests.
    """

    def __init__(self, port: int, most: int | None = None) -> None:
        self.port, self.most, self.sent = port, most, 0
        self.answered, self.lost, self.seconds = Counter[int](), 0, list[float]()
        self.open, self.stopping = 0, False
        self._requests = requests()

    async def connect(self, count: int) -> None:
        """Open so many connections, and begin."""
        loop = asyncio.get_running_loop()
        for _ in range(count):
            await loop.create_connection(lambda: _Client(self), "127.0.0.1", self.port)

    async def ended(self) -> None:
        """Wait until all connections are closed."""
        while self.open:
            await asyncio.sleep(0.05)

    def next(self) -> bytes | None:
        """The next request; None: there is none."""
        if self.stopping or (self.most is not None and self.sent >= self.most):
            return None
        self.sent += 1
        *right, malformed = self._requests
        return malformed if self.sent % MALFORMED_EVERY == 0 else right[self.sent % len(right)]


class _Client(asyncio.Protocol):
    def __init__(self, load: Load) -> None:
        self.load, self.received, self.since = load, b"", 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.load.open += 1
        self.ask()

    def ask(self) -> None:
        self.received, request = b"", self.load.next()
        if request is None:
            self.since = 0.0
            self.transport.close()
            return
        self.since = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        self.load.answered[int(head[9:12])] += 1
        self.load.seconds.append(time.perf_counter() - self.since)
        if b"connection: close" in head:
            self.since = 0.0
            self.transport.close()
            return
        self.ask()

    def connection_lost(self, _: Exception | None) -> None:
        self.load.open -= 1
        self.load.lost += self.since > 0


async def soak(server: Server, count: int, connections: int, most_seconds: float) -> dict[str, Any]:
    """Answer so many requests, or as many as the time allows; memory is compared behind the first tenth of them."""
    load, samples = Load(server.port, count), list[dict[str, Any]]()
    begin = time.monotonic()
    await load.connect(connections)
    while load.open:
        await asyncio.sleep(SAMPLE_S)
        spent = {"answered": load.answered.total(), "s": round(time.monotonic() - begin, 1)}
        times, load.seconds = load.seconds, []
        if times:
            spent |= {"p50_ms": _ms(times, 50), "p99_ms": _ms(times, 99)}
        samples.append({**spent, **server.memory()})
        load.stopping = time.monotonic() - begin > most_seconds
    count = load.sent
    warm = [sample["rss_kib"] for sample in samples if sample["answered"] >= count / 10]
    edge = max(1, len(warm) // 20)
    first, last = float(np.median(warm[:edge])), float(np.median(warm[-edge:]))
    wrong = count // MALFORMED_EVERY
    assert load.answered == {200: count - wrong, 400: wrong}, load.answered
    assert load.lost == 0
    return {
        "requests": count, "answered": dict(load.answered), "lost": load.lost,
        "requests_per_s": round(count / samples[-1]["s"], 1),
        "rss_after_warm_up_kib": first, "rss_at_the_end_kib": last,
        "rss_growth": round(last / first - 1, 5), "samples": samples[:: max(1, len(samples) // 40)] + samples[-1:],
    }  # fmt: skip


async def idle(server: Server, count: int) -> dict[str, Any]:
    """Hold so many connections that send nothing, and ask on another."""
    before, quiet = server.memory(), Load(server.port, 500)
    await quiet.connect(1)
    await quiet.ended()
    held = [socket.socket() for _ in range(count)]
    begin = time.monotonic()
    for at, one in enumerate(held):
        one.connect(("127.0.0.1", server.port))
        if at % 500 == 499:  # the queue of the kernel for connections that nobody has accepted is limited
            await asyncio.sleep(0.2)
    while (within := server.memory())["files"] < count:
        await asyncio.sleep(0.1)
    opened, load = time.monotonic() - begin, Load(server.port, 500)
    await load.connect(1)
    await load.ended()
    for one in held:
        one.close()
    while server.memory()["files"] > before["files"] + 10:
        await asyncio.sleep(0.1)
    return {
        "connections": count, "seconds_to_open": round(opened, 2), "before": before, "within": within,
        "after": server.memory(), "kib_for_each": round((within["rss_kib"] - before["rss_kib"]) / count, 2),
        "p50_ms_without": _ms(quiet.seconds, 50), "p50_ms": _ms(load.seconds, 50), "p99_ms": _ms(load.seconds, 99),
    }  # fmt: skip


async def stopped(start: Callable[..., Server], connections: int) -> dict[str, Any]:
    """SIGTERM under load: what the service has accepted, as it logs it, is what clients got as answers."""
    server = start("--log-requests")
    load = Load(server.port)
    await load.connect(connections)
    await asyncio.sleep(UNDER_LOAD_S)
    server.process.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    await load.ended()
    code = await asyncio.to_thread(server.process.wait)
    took = time.monotonic() - begin
    accepted = Counter(line["status"] for line in server.lines("request"))
    return {
        "accepted": dict(accepted), "answered": dict(load.answered),
        "accepted_and_lost": (accepted - load.answered).total(), "not_accepted": load.lost,
        "exit_code": code, "seconds_to_stop": round(took, 3),
    }  # fmt: skip


async def killed(start: Callable[..., Server], connections: int) -> dict[str, Any]:
    """SIGKILL under load, and a new server on the same port."""
    server = start()
    load = Load(server.port)
    await load.connect(connections)
    await asyncio.sleep(UNDER_LOAD_S)
    in_flight = load.sent - load.answered.total()
    server.process.kill()
    server.process.wait()
    await load.ended()
    second = await asyncio.to_thread(start, "--port", str(server.port))
    after = Load(second.port, 200)
    await after.connect(connections)
    await after.ended()
    code = second.stop()
    return {
        "answered": dict(load.answered), "in_flight": in_flight, "lost": load.lost,
        "answered_after": dict(after.answered), "seconds_to_ready_again": round(second.seconds_to_ready, 2),
        "exit_code": code,
    }  # fmt: skip


def _ms(seconds: list[float], percentile: float) -> float:
    return round(1000 * float(np.percentile(seconds, percentile)), 3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--most-seconds", type=float, default=3600.0, help="of the requests")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--idle", type=int, default=10_000, help="connections that send nothing")
    parser.add_argument("--name", default="", help="of the JSON; default: the script's")
    chosen = parser.parse_args()
    record, connections = Record(HERE, chosen.name), chosen.connections
    with tempfile.TemporaryDirectory() as name:
        folder = write_cascade(Path(name) / "net", side=SIDE, products=0)

        def start(*options: str) -> Server:
            return Server(folder, *options)

        figures: dict[str, Any] = {
            "SIGTERM under load": [asyncio.run(stopped(start, connections)) for _ in range(TIMES)],
            "SIGKILL under load": [asyncio.run(killed(start, connections)) for _ in range(TIMES)],
        }
        server = start("--connections", str(chosen.idle + 100))
        figures["soak"] = asyncio.run(soak(server, chosen.requests, connections, chosen.most_seconds))
        figures["idle connections"] = asyncio.run(idle(server, chosen.idle))
        figures["exit_code"] = server.stop()
    record.write(figures, connections=connections, malformed_every=MALFORMED_EVERY)


if __name__ == "__main__":
    main()
