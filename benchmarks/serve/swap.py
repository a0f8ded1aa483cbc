"""Exchange the version of a model again and again under load: no request is lost, and no memory.

    PYTHONPATH=. python benchmarks/serve/swap.py

Two cascades of ``network.py`` take turns behind one link. Each ``load`` opens, checks and warms up one of them while
clients ask without a pause; the other one is stopped after its last request. It needs Linux, for /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from endurance import Load
from network import write_cascade
from process import Server

sys.path.append(str(Path(__file__).parents[1] / "speed"))
from record import Record

HERE = Path(__file__).resolve().parent
SIDE, CALM_S = 2, 0.5


async def swap(server: Server, link: Path, folders: list[Path], *, times: int, connections: int) -> dict[str, Any]:
    """Load each folder in turn while clients ask."""
    control = server.lines("control")[0]["url"]
    load, calm, busy = Load(server.port), list[float](), list[float]()
    took, memory = list[float](), list[int]()
    await load.connect(connections)
    async with httpx.AsyncClient(timeout=120) as client:
        for at in range(times):
            load.seconds = []
            await asyncio.sleep(CALM_S)
            calm += load.seconds
            link.unlink()
            link.symlink_to(folders[(at + 1) % 2])
            load.seconds, begin = [], time.perf_counter()
            answer = await client.post(f"{control}/models/net/load")
            took.append(time.perf_counter() - begin)
            busy += load.seconds
            assert answer.status_code == 200, answer.text
            memory.append(server.memory()["rss_kib"])
    load.stopping = True
    await load.ended()
    assert set(load.answered) <= {200, 400}, load.answered
    assert load.lost == 0
    later = memory[len(memory) // 4 :]
    return {
        "loads": times, "answered": dict(load.answered), "lost": load.lost,
        "seconds_of_a_load": round(float(np.median(took)), 3),
        "ms_without_a_load": _percentiles(calm), "ms_within_a_load": _percentiles(busy),
        "rss_kib": memory, "rss_growth_after_a_quarter": round(later[-1] / later[0] - 1, 4),
    }  # fmt: skip


def _percentiles(seconds: list[float]) -> dict[str, float]:
    return {f"p{at}": round(1000 * float(np.percentile(seconds, at)), 3) for at in (50, 99, 100)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--loads", type=int, default=40)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--products", type=int, default=4, help="matrices of 1 MiB in each of three stages")
    chosen = parser.parse_args()
    record = Record(HERE)
    with tempfile.TemporaryDirectory() as name:
        folders = [
            write_cascade(Path(name) / str(products), side=SIDE, products=products)
            for products in (chosen.products, chosen.products + 1)
        ]
        link = Path(name) / "net"
        link.symlink_to(folders[0])
        server = Server(link, "--control-port", "0", "--versions", "1")
        figures = asyncio.run(swap(server, link, folders, times=chosen.loads, connections=chosen.connections))
        figures["exit_code"] = server.stop()
    record.write(figures, connections=chosen.connections, products=chosen.products)


if __name__ == "__main__":
    main()
