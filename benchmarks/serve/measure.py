"""Measure the server over the raw engine, and batches that form anew at every exit beside other ways; under 3 minutes.

    PYTHONPATH=. python benchmarks/serve/measure.py

The cascades are of ``network.py``: of known cost, and inputs say where they exit. One thread computes.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from batching import ways
from load import Load
from network import inputs_of, write_cascade

sys.path.append(str(Path(__file__).parents[1] / "speed"))
from record import Record

from sdcompress.options import EngineOptions
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.open import open_cascade
from sdcompress.serving.scheduler import Scheduler
from sdcompress.serving.warm_up import warm_up
from sdcompress.serving.worker import Worker

HERE = Path(__file__).resolve().parent
ONE = EngineOptions(threads=1)
MIX, MOST_ROWS, UNDER_WAY = (0.5, 0.3, 0.2), 32, 64
CLIENTS = 8


class Server:
    """The command in a process of its own."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-c", "from sdcompress.cli import main; main()", "serve", f"net={folder}"]
        options = ["--port", "0", "--no-metrics", "--threads", "1", "--latency-bound", "60s"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True, env=environment)
        self.port = 0
        assert self.process.stderr is not None
        for line in self.process.stderr:
            entry = json.loads(line)
            if entry["message"] == "listening":
                self.port = int(entry["url"].rpartition(":")[2].partition("/")[0])
            if entry["message"] == "model ready":
                break
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def stop(self) -> None:
        """Finish what waits, and end."""
        self.process.terminate()
        self.process.wait()


class Client:
    """A connection that sends one prepared body again and again: what a client costs is not measured."""

    def __init__(self, port: int, inputs: np.ndarray) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        head = json.dumps({
            "inputs": [{"name": "input", "shape": list(inputs.shape), "datatype": "FP32",
                        "parameters": {"binary_data_size": inputs.nbytes}}],
            "outputs": [{"name": "outputs", "parameters": {"binary_data": True}}],
        }).encode()  # fmt: skip
        self._body = head + inputs.tobytes()
        self._headers = {"Inference-Header-Content-Length": str(len(head))}

    def __call__(self) -> None:
        """Send it once, and read the response."""
        self._connection.request("POST", "/v2/models/net/infer", self._body, self._headers)
        response = self._connection.getresponse()
        content = response.read()
        assert response.status == 200, content


def latency(folder: Path, side: int, seconds: float) -> dict[str, float]:
    """Milliseconds of one request at a time: the engine in this process, and the server, in turn."""
    engine, server = open_cascade(folder, ONE), Server(folder)
    inputs = inputs_of([2], side)
    client, times = Client(server.port, inputs), dict[str, list[float]](engine=[], server=[])
    calls = {"engine": lambda: engine(inputs), "server": client}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - begin))
    server.stop()
    medians = {f"{name}_p50_ms": float(np.median(each[20:])) for name, each in times.items()}
    added = medians["server_p50_ms"] - medians["engine_p50_ms"]
    p99 = {f"{name}_p99_ms": float(np.percentile(each[20:], 99)) for name, each in times.items()}
    return {key: round(value, 3) for key, value in {**medians, **p99, "added_p50_ms": added}.items()}


def saturation(folder: Path, side: int, seconds: float) -> dict[str, float]:
    """Rows per second with clients that never pause: through the server, and by the same worker in this process."""
    engine = open_cascade(folder, ONE)
    inputs = [inputs_of([exit_index], side) for exit_index in range(3)]
    inside, outside = [], []
    for _ in range(2):
        worker = Worker(
            engine.stepwise(),
            Scheduler(warm_up(engine, engine.stepwise(), most_rows=MOST_ROWS), most_rows=10**6, clock=time.monotonic),
            name="worker",
        )
        worker.start()
        inside.append(Load(worker, inputs, (0.0, 0.0, 1.0)).closed(CLIENTS, seconds / 4)["rows_per_s"])
        worker.stop()
        server = Server(folder)
        outside.append(_answered(server.port, inputs[2], seconds / 4))
        server.stop()
    ratio = float(np.median(outside) / np.median(inside))
    return {"in_process_rows_per_s": max(inside), "server_rows_per_s": max(outside), "ratio": round(ratio, 3)}


def _answered(port: int, inputs: np.ndarray, seconds: float) -> float:
    counts, end = [0] * CLIENTS, time.monotonic() + seconds

    def ask(at: int) -> None:
        client = Client(port, inputs)
        while time.monotonic() < end:
            client()
            counts[at] += 1

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return round(sum(counts) / seconds, 1)


def batching(engine: CascadeEngine, side: int, seconds: float) -> dict[str, Any]:
    """Throughput and latency of four ways to serve the mix, in turn; what each computes is the same."""
    inputs = [inputs_of([exit_index], side) for exit_index in range(3)]
    named = ways(engine, lambda: warm_up(engine, engine.stepwise(), most_rows=MOST_ROWS), MOST_ROWS)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in named}
    for _ in range(3):
        for name, start in named.items():
            server = start()
            rounds[name].append(Load(server, inputs, MIX).closed(UNDER_WAY, seconds / 3 / len(named)))
            server.stop()
    figures = {
        name: {
            key: round(float(np.median([one[key] for one in each])), 3) for key in ("rows_per_s", "p50_ms", "p99_ms")
        }
        for name, each in rounds.items()
    }
    first, *others = figures
    ours = figures[first]["rows_per_s"]
    factors = {f"throughput / {name}": round(ours / figures[name]["rows_per_s"], 3) for name in others}
    return {**figures, **factors}


def overload(engine: CascadeEngine, side: int, peak: float, seconds: float, bound: float) -> dict[str, Any]:
    """Three times as many requests as the peak: what is accepted, and how fast the rest is refused."""
    costs = warm_up(engine, engine.stepwise(), most_rows=MOST_ROWS)
    worker = Worker(engine.stepwise(), Scheduler(costs, most_rows=4096, clock=time.monotonic), name="worker")
    worker.start()
    inputs = [inputs_of([exit_index], side) for exit_index in range(3)]
    figures = Load(worker, inputs, MIX, bound=bound).open(3 * peak, seconds)
    return {**figures, "bound_ms": 1000 * bound, "goodput / peak": round(figures["good_rows_per_s"] / peak, 3)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=12.0, help="for each of the figures")
    # about a millisecond for a row, as networks have; with much less Python's own work decides
    parser.add_argument("--products", type=int, default=96, help="matrices in each stage of the batched network")
    parser.add_argument("--name", default="", help="of the JSON; default: the script's")
    parser.add_argument("--bound", type=float, default=0.5, help="of the overload, in seconds")
    chosen = parser.parse_args()
    seconds, bound = chosen.seconds, chosen.bound
    record = Record(HERE, chosen.name)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny = write_cascade(folder / "tiny", side=8, products=0)
        image = write_cascade(folder / "image", side=224, products=0)
        working = write_cascade(folder / "working", side=224, products=24)
        engine = open_cascade(write_cascade(folder / "batched", side=8, products=chosen.products), ONE)
        figures: dict[str, Any] = {
            "tiny payload, no work": latency(tiny, 8, seconds / 2),
            "image payload (602 KB), no work": latency(image, 224, seconds / 2),
            "saturated, image payload": saturation(working, 224, seconds),
            "batching": batching(engine, 8, 2 * seconds),
        }
        peak = figures["batching"]["batches form anew at every exit"]["rows_per_s"]
        figures["overload, three times the peak"] = overload(engine, 8, peak, seconds / 2, bound)
    record.write(figures, seconds=seconds, mix=MIX, most_rows=MOST_ROWS, under_way=UNDER_WAY, clients=CLIENTS)


if __name__ == "__main__":
    main()
