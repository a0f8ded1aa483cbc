"""Compare the simulation of `sdcompress capacity` with the real server at three loads, and draw both.

    PYTHONPATH=. python benchmarks/serve/capacity.py [--batches]

The cascade is of ``network.py``, whose inputs say where they exit. Its stages take a set time (``timed_backend.py``),
so that a busy machine can compare the two: what is tried is scheduler, worker and HTTP side of a real server. With
``--batches`` a batch of four rows is worth it, and requests come faster.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from measure import Client
from network import inputs_of, write_cascade
from process import ONE_THREAD, Server

sys.path.append(str(Path(__file__).parents[1] / "speed"))
from record import Record

import sdcompress
from sdcompress.options import EngineOptions
from sdcompress.serving.options import ServiceOptions

HERE = Path(__file__).resolve().parent
PARSER = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
PARSER.add_argument("--batches", action="store_true", help="stages in which a batch of four rows is worth it")
PARSER.add_argument("--draw", action="store_true", help="only draw the record that is there")
ARGUMENTS = PARSER.parse_args()
NAME = "capacity-batches" if ARGUMENTS.batches else "capacity"
# milliseconds of a call and of each row, the latency bound, and seconds of each load
TIMED_MS, BOUND_S, SECONDS = ("38,6", 3.0, 40.0) if ARGUMENTS.batches else ("90,10", 6.0, 60.0)
SIDE, PRODUCTS = 8, 1
LOADS = (0.3, 0.8, 1.5)  # shares of the simulated limit
CONNECTIONS = 300
ENGINE = EngineOptions(backend="timed", threads=1)


def main() -> None:
    record = Record(HERE, NAME)
    with tempfile.TemporaryDirectory() as temporary:
        add_backend(Path(temporary))
        folder = write_cascade(Path(temporary) / "net", side=SIDE, products=PRODUCTS)
        service = ServiceOptions(latency_bound=BOUND_S)
        simulated = sdcompress.capacity(folder, ENGINE, service)
        server = Server(folder, "--latency-bound", f"{BOUND_S}s", "--backend", "timed")
        try:
            measured = [
                real(server.port, share * simulated.limit_per_s, simulated.shares, np.random.default_rng(0))
                for share in LOADS
            ]
        finally:
            server.stop()
        again = sdcompress.capacity(folder, ENGINE, service)
    figures = {
        "simulated": simulated.model_dump(mode="json", exclude={"machine"}),
        "simulated after": again.model_dump(mode="json", exclude={"machine"}),
        "measured": measured,
    }
    record.write(figures, timed_ms=TIMED_MS, latency_bound_s=BOUND_S, seconds_of_each_load=SECONDS)
    draw(figures)


def add_backend(folder: Path) -> None:
    """Make the backend known to this process and to the server, as an installed package would."""
    shutil.copy(HERE / "timed_backend.py", folder)
    info = folder / "timed-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: timed\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[sdcompress.runtime.backends]\ntimed = timed_backend:load\n")
    sys.path.insert(0, str(folder))
    os.environ["TIMED_MS"] = ONE_THREAD["TIMED_MS"] = TIMED_MS
    ONE_THREAD["PYTHONPATH"] = f"{folder}:{ONE_THREAD.get('PYTHONPATH', '')}"


def real(port: int, rate: float, shares: tuple[float, ...], rng: np.random.Generator) -> dict[str, float]:
    """Send requests at random times (Poisson), whether or not earlier ones are answered."""
    clients = [[Client(port, inputs_of([exit_index], SIDE)) for exit_index in range(3)] for _ in range(CONNECTIONS)]
    due: SimpleQueue[tuple[float, int] | None] = SimpleQueue()
    answered, refused = list[float](), list[float]()

    def ask(by_exit: list[Client]) -> None:
        while (one := due.get()) is not None:
            sent, exit_index = one
            try:
                by_exit[exit_index]()
                answered.append(time.monotonic() - sent)
            except AssertionError:  # the client's: the status is not 200
                refused.append(time.monotonic() - sent)

    threads = [threading.Thread(target=ask, args=(one,)) for one in clients]
    for thread in threads:
        thread.start()
    begin = at = time.monotonic()
    while at < begin + SECONDS:
        if (wait := at - time.monotonic()) > 0:
            time.sleep(wait)
        due.put((at, int(rng.choice(len(shares), p=shares))))
        at += float(rng.exponential(1 / rate))
    for _ in threads:
        due.put(None)
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begin
    latencies = np.array(answered)
    return {
        "requests_per_s": rate,
        "good_per_s": float((latencies <= BOUND_S).sum()) / seconds,
        "refused": len(refused) / (len(refused) + len(answered)),
        "p50_ms": 1000 * float(np.percentile(latencies, 50)),
        "p99_ms": 1000 * float(np.percentile(latencies, 99)),
        "refused_p99_ms": 1000 * float(np.percentile(refused, 99)) if refused else 0.0,
    }


def draw(figures: dict[str, Any]) -> None:
    """Draw p99 and what is answered in time against the load."""
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "sdcompress", "font.family": "sans-serif"})
    drawn = Figure((8, 3.2), layout="constrained")
    left, right = drawn.subplots(1, 2)
    loads, points = figures["simulated"]["loads"], figures["measured"]
    for axes, key, label in ((left, "p99_ms", "p99, ms"), (right, "good_per_s", "answered in time, requests/s")):
        axes.plot(
            [p["requests_per_s"] for p in loads], [p[key] for p in loads], "-", color="#0969da", label="simulated"
        )
        axes.plot([p["requests_per_s"] for p in points], [p[key] for p in points], "o", color="#cf222e", label="server")
        axes.axvline(figures["simulated"]["limit_per_s"], color="#6e7781", linestyle=":", label="limit of one machine")
        axes.set(xlabel="requests/s that arrive", ylabel=label, ylim=(0, None), xlim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
    left.axhline(1000 * BOUND_S, color="#6e7781", linewidth=0.8)
    right.legend(frameon=False)
    text = io.StringIO()
    drawn.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    (HERE / f"{NAME}.svg").write_text("".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines()))


if __name__ == "__main__":
    if ARGUMENTS.draw:
        draw(json.loads((HERE / f"{NAME}.json").read_text(encoding="utf-8"))["figures"])
    else:
        main()
