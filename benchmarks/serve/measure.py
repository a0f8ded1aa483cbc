"""Measure the server over the raw engine, batches that form anew at every exit, goodput, and overload; under 6 minutes.

    PYTHONPATH=. python benchmarks/serve/measure.py

The cascades are of ``network.py``: of known cost, and inputs say where they exit. One thread computes. It needs wrk and
an idle machine with two cores.
"""

from __future__ import annotations

import argparse
import http.client
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from batching import OURS, ways
from goodput import goodput, samples_of, synthetic
from load import Load
from network import inputs_of, write_cascade
from process import Server
from wrk import Wrk, binary_request

sys.path.append(str(Path(__file__).parents[1] / "speed"))
from record import Record

from sdcompress.options import EngineOptions
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.open import open_cascade
from sdcompress.runtime.stepwise import Carried
from sdcompress.serving.scheduler import Scheduler
from sdcompress.serving.warm_up import usual_inputs, warm_up
from sdcompress.serving.worker import Worker

HERE = Path(__file__).resolve().parent
ONE = EngineOptions(threads=1)
MIX, MOST_ROWS, UNDER_WAY = (0.5, 0.3, 0.2), 32, 64
CLIENTS, ROUNDS = 8, 5


class Client:
    """A connection of Python's own HTTP client that sends one prepared body again and again."""

    def __init__(self, port: int, inputs: np.ndarray) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._request = binary_request("input", inputs, "outputs")

    def __call__(self) -> None:
        """Send it once, and read the response."""
        self._connection.request("POST", "/v2/models/net/infer", *self._request)
        response = self._connection.getresponse()
        content = response.read()
        assert response.status == 200, content


def median_ms(call: Any, seconds: float) -> float:
    """Milliseconds of calls one after the other."""
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - begin))
    return float(np.median(times))


def latency(folder: Path, side: int) -> dict[str, Any]:
    """Milliseconds of one request at a time, in turn: the engine in this process; the server, by wrk and by Python."""
    engine, server, inputs = open_cascade(folder, ONE), Server(folder), inputs_of([2], side)
    wrk, python = Wrk(server.url, *binary_request("input", inputs, "outputs")), Client(server.port, inputs)
    rounds: dict[str, list[float]] = {"engine": [], "server": [], "server_p99": [], "server_by_http.client": []}
    try:
        for _ in range(ROUNDS + 1):
            rounds["engine"].append(median_ms(lambda: engine(inputs), 0.5))
            by_wrk = wrk.run(1, 1)
            rounds["server"].append(by_wrk["p50_ms"])
            rounds["server_p99"].append(by_wrk["p99_ms"])
            rounds["server_by_http.client"].append(median_ms(python, 0.5))
    finally:
        server.stop()
    medians = {name: float(np.median(each[1:])) for name, each in rounds.items()}  # the first one warms up
    figures = {f"{name}_ms": value for name, value in medians.items()}
    figures["added_p50_ms"] = medians["server"] - medians["engine"]
    figures["added_p50_by_http.client_ms"] = medians["server_by_http.client"] - medians["engine"]
    return {**{key: round(value, 3) for key, value in figures.items()}, "rounds_ms": rounds}


def saturation(folder: Path, side: int, seconds: int) -> dict[str, Any]:
    """Rows per second with clients that never pause, in turn: by the worker in this process, and through the server."""
    engine, server, inputs = open_cascade(folder, ONE), Server(folder), inputs_of([2], side)
    wrk = Wrk(server.url, *binary_request("input", inputs, "outputs"))
    rounds: dict[str, list[float]] = {"in_process": [], "server": []}
    try:
        for _ in range(ROUNDS):
            worker = started(engine, 10**6)
            load = Load(worker, [{"input": inputs}], (1.0,))
            rounds["in_process"].append(load.closed(CLIENTS, seconds)["rows_per_s"])
            worker.stop()
            rounds["server"].append(wrk.run(CLIENTS, seconds)["requests_per_s"])
    finally:
        server.stop()
    ratio = float(np.median(np.array(rounds["server"]) / np.array(rounds["in_process"])))
    figures = {f"{name}_rows_per_s": round(float(np.median(each)), 1) for name, each in rounds.items()}
    return {**figures, "ratio": round(ratio, 3), "rounds": rounds}


def workers(folder: Path, side: int, connections: int) -> dict[str, Any]:
    """Requests per second on two cores, in turn: one process with two threads, and two processes."""
    request = binary_request("input", inputs_of([2], side), "outputs")
    servers = {
        "one_worker": Server(folder, "--threads", "2"),
        "two_workers": Server(folder, "--threads", "2", "--workers", "2"),
    }
    rounds: dict[str, list[float]] = {name: [] for name in servers}
    try:
        for _ in range(ROUNDS):
            for name, server in servers.items():
                rounds[name].append(Wrk(server.url, *request).run(connections, 1)["requests_per_s"])
    finally:
        for server in servers.values():
            server.stop()
    figures = {f"{name}_requests_per_s": round(float(np.median(each)), 1) for name, each in rounds.items()}
    ratio = float(np.median(np.array(rounds["two_workers"]) / np.array(rounds["one_worker"])))
    return {**figures, "ratio": round(ratio, 3), "rounds": rounds}


def started(engine: CascadeEngine, most_rows: int) -> Worker:
    """The worker of the server, in this process."""
    scheduler = Scheduler(
        warm_up(engine, engine.stepwise(), most_rows=MOST_ROWS), most_rows=most_rows, clock=time.monotonic
    )
    worker = Worker(engine.stepwise(), scheduler, name="worker", probe=Carried(usual_inputs(engine).arrays))
    worker.start()
    return worker


def batching(engine: CascadeEngine, seconds: float) -> dict[str, Any]:
    """Throughput and latency of the ways to serve the mix, in turn; what each computes is the same."""
    samples = synthetic()
    named = ways(engine, lambda: warm_up(engine, engine.stepwise(), most_rows=MOST_ROWS), MOST_ROWS)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in named}
    for _ in range(3):
        for name, start in named.items():
            server = start()
            rounds[name].append(Load(server, samples.rows, MIX).closed(UNDER_WAY, seconds / 3 / len(named)))
            server.stop()
    figures = {
        name: {
            key: round(float(np.median([one[key] for one in each])), 3) for key in ("rows_per_s", "p50_ms", "p99_ms")
        }
        for name, each in rounds.items()
    }
    ours = figures[OURS]["rows_per_s"]
    factors = {f"throughput / {name}": round(ours / each["rows_per_s"], 3) for name, each in figures.items()}
    return {**figures, **{name: factor for name, factor in factors.items() if not name.endswith(OURS)}}


def overload(engine: CascadeEngine, peak: float, seconds: float, bound: float) -> dict[str, Any]:
    """Three times as many requests as the peak: what is accepted, and how fast the rest is refused."""
    figures = Load(started(engine, 4096), synthetic().rows, MIX, bound=bound).open(3 * peak, seconds)
    return {**figures, "bound_ms": 1000 * bound, "goodput / peak": round(figures["good_rows_per_s"] / peak, 3)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=12.0, help="for the batching; overload takes half of it")
    # about a millisecond for a row, as networks have; with much less Python's own work decides
    parser.add_argument("--products", type=int, default=96, help="matrices in each stage of the batched network")
    parser.add_argument("--name", default="", help="of the JSON; default: the script's")
    parser.add_argument("--bound", type=float, default=0.5, help="of the overload, in seconds")
    parser.add_argument("--artifact", type=Path, help="of a real cascade, whose goodput is measured too")
    parser.add_argument("--without-goodput", action="store_true")
    chosen = parser.parse_args()
    record = Record(HERE, chosen.name)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nothing, image = write_cascade(folder / "tiny", side=8), write_cascade(folder / "image", side=224)
        convolved = write_cascade(folder / "convolved", side=224, convolutions=3)
        multiplied = write_cascade(folder / "multiplied", side=224, products=24)
        engine = open_cascade(write_cascade(folder / "batched", side=8, products=chosen.products), ONE)
        figures: dict[str, Any] = {
            "tiny payload, no work": latency(nothing, 8),
            "image payload (602 KB), no work": latency(image, 224),
            "saturated, image payload, batches save nothing": saturation(convolved, 224, 2),
            "saturated, image payload, batches save much": saturation(multiplied, 224, 2),
            "workers, tiny payload, no work, 32 connections": workers(nothing, 8, 32),
            "workers, image payload, batches save nothing, 8 connections": workers(convolved, 224, 8),
            "batching": batching(engine, 2 * chosen.seconds),
        }
        peak = figures["batching"][OURS]["rows_per_s"]
        figures["overload, three times the peak"] = overload(engine, peak, chosen.seconds / 2, chosen.bound)
        if not chosen.without_goodput:
            saving = open_cascade(write_cascade(folder / "saving", side=8, products=48), ONE)
            plain = open_cascade(write_cascade(folder / "plain", side=8, convolutions=2), ONE)
            figures["goodput, batches save nothing"] = goodput(plain, synthetic(), 1.0)
            figures["goodput, batches save much"] = goodput(saving, synthetic(), 1.0)
        if chosen.artifact:
            real = open_cascade(chosen.artifact, EngineOptions(threads=1, allow_uncertified=True))
            figures["goodput, a real mix"] = goodput(real, samples_of(real, chosen.artifact), 1.0)
    record.write(
        figures,
        seconds=chosen.seconds,
        mix=MIX,
        most_rows=MOST_ROWS,
        under_way=UNDER_WAY,
        clients=CLIENTS,
        rounds=ROUNDS,
    )


if __name__ == "__main__":
    main()
