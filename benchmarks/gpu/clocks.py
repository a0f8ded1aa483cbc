"""Clocks: those of the GPU by events, that of the host, and what nvidia-smi says of the card meanwhile."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from sdcompress.benchmarking.stats import Ratio, ratio_of_medians
from sdcompress.benchmarking.timed_calls import no_collection
from sdcompress.errors import SetupError
from sdcompress.tensorrt.nvidia.gpu_query import probe_cuda

Times = npt.NDArray[np.float64]
Sample = dict[str, float]  # milliseconds by the name of the clock
FIELDS = "clocks.sm,clocks.mem,power.draw,temperature.gpu,clocks_throttle_reasons.active"
IDLE = 0x1  # nvmlClocksThrottleReasonGpuIdle: no reason to worry


def in_turn(
    calls: dict[str, Callable[[], Sample]], *, rounds: int = 10, seconds: float = 0.4, warmup: float = 0.5
) -> dict[str, dict[str, list[Times]]]:
    """Time calls ABAB..., closed loop: submit, wait, next.

    Args:
        calls: by name; each gives its clocks, in ms.
        rounds: turns of each.
        seconds: of one turn.
        warmup: seconds of each before the first; at least 10 calls.

    Returns:
        By name and clock, the times of each round.
    """
    found: dict[str, dict[str, list[Times]]] = {name: {} for name in calls}
    with no_collection():
        for call in calls.values():
            _turn(call, warmup, least=10)
        for _ in range(rounds):
            for name, call in calls.items():
                samples = _turn(call, seconds, least=3)
                for clock in samples[0]:
                    found[name].setdefault(clock, []).append(np.array([sample[clock] for sample in samples]))
    return found


def _turn(call: Callable[[], Sample], seconds: float, least: int) -> list[Sample]:
    samples: list[Sample] = []
    end = perf_counter_ns() + int(seconds * 1e9)
    while perf_counter_ns() < end or len(samples) < least:
        samples.append(call())
    return samples


def medians(found: dict[str, dict[str, list[Times]]]) -> dict[str, dict[str, float]]:
    """The median of every clock, ms, and the number of calls."""
    return {
        name: {
            **{f"{clock}_ms": round(float(np.median(np.concatenate(times))), 5) for clock, times in clocks.items()},
            "calls": int(sum(map(len, next(iter(clocks.values()))))),
        }
        for name, clocks in found.items()
    }


def ratio(found: dict[str, dict[str, list[Times]]], one: str, other: str, clock: str) -> dict[str, float]:
    """The median of one over that of another, with the bootstrap interval over the rounds."""
    made: Ratio = ratio_of_medians(found[one][clock], found[other][clock])
    return {"ratio": round(made.value, 4), "low": round(made.low, 4), "high": round(made.high, 4)}


def wall(call: Callable[[], Any]) -> Callable[[], Sample]:
    """A call by the host's clock alone; it must end with its answer in the host's memory."""

    def timed() -> Sample:
        start = perf_counter_ns()
        call()
        return {"end_to_end": (perf_counter_ns() - start) / 1e6}

    return timed


@contextmanager
def watched() -> Iterator[dict[str, Any]]:
    """Clocks, power, temperature and throttling of CUDA's first GPU, ten times a second while the block runs.

    Nothing is set: the card runs as it is found ("floating"), and the record says how that was.
    """
    seen: dict[str, Any] = {}
    try:
        card = probe_cuda().bus  # nvidia-smi counts all cards, whatever CUDA_VISIBLE_DEVICES says
    except SetupError as error:
        card, seen["clocks"] = "", error.problem
    if shutil.which("nvidia-smi") is None:
        card, seen["clocks"] = "", "nvidia-smi is not there"
    if not card:
        yield seen
        return
    asked = ["nvidia-smi", "-i", card, f"--query-gpu={FIELDS}", "--format=csv,noheader,nounits", "-lms", "100"]
    # into a file: a pipe that nobody reads is full after some minutes, and then nvidia-smi waits
    with TemporaryFile("w+", encoding="utf-8") as said, subprocess.Popen(asked, stdout=said, stderr=said) as smi:
        try:
            yield seen
        finally:
            smi.terminate()
            smi.wait()
            said.seek(0)
            seen["clocks"] = summary(said.read())


def summary(text: str) -> dict[str, Any]:
    """Lowest, mean and highest of each figure that nvidia-smi printed, and the reasons for throttling that it saw."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.count(",") == 4]
    if not rows:
        return {"mode": "floating", "samples": 0, "said": text.strip()[:500]}
    made: dict[str, Any] = {"mode": "floating", "samples": len(rows)}
    for at, name in enumerate(("sm_mhz", "memory_mhz", "power_w", "temperature_c")):
        numbers = [float(row[at]) for row in rows if row[at].replace(".", "", 1).isdigit()]
        made[name] = [min(numbers), round(sum(numbers) / len(numbers), 1), max(numbers)] if numbers else None
    reasons = {int(row[4], 16) for row in rows if row[4].startswith("0x")}
    made["throttle_reasons"] = sorted(hex(reason) for reason in reasons if reason & ~IDLE)
    return made
