"""Contenders that take turns (ABAB...), so that each ratio is of times that were measured under the same mood."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from sdcompress.benchmarking.clock import no_collection

Times = npt.NDArray[np.float64]
Loop = Callable[[Callable[..., None]], None]


def calls_in_turn(
    calls: dict[str, Callable[[Any], Any]], inputs: list[Any], *, rounds: int, seconds: float
) -> dict[str, list[Times]]:
    """Time calls, closed loop; all get the same inputs in the same order.

    Args:
        calls: by name.
        inputs: used in order and again from the start.
        rounds: turns of each.
        seconds: of one turn; one untimed call goes before it, because the caches hold another's data.

    Returns:
        For each name the times of each round, ms.
    """
    times: dict[str, list[Times]] = {name: [] for name in calls}
    with no_collection():
        for call in calls.values():
            _turn(call, inputs, seconds=0.5)
        for _ in range(rounds):
            for name, call in calls.items():
                times[name].append(_turn(call, inputs, seconds))
    return times


def _turn(call: Callable[[Any], Any], inputs: list[Any], seconds: float) -> Times:
    call(inputs[-1])
    took: list[int] = []
    deadline = perf_counter_ns() + int(seconds * 1e9)
    end = 0
    while end < deadline:
        given = inputs[len(took) % len(inputs)]
        start = perf_counter_ns()
        call(given)
        end = perf_counter_ns()
        took.append(end - start)
    return np.asarray(took, np.float64) / 1e6


def steps_of(rounds: int, steps: int) -> int:
    """The steps that a loop must make in ``loops_in_turn``: one untimed in each round, and a round to warm up."""
    return (rounds + 1) * (steps + 1)


def loops_in_turn(loops: dict[str, Loop], *, rounds: int, steps: int) -> dict[str, list[Times]]:
    """Time the steps of whole training loops, each as it is: a step lasts from one call of ``on_step`` to the next.

    Each loop has a thread of its own, and one at a time runs. It makes ``steps_of(rounds, steps)`` steps.

    Args:
        loops: by name; each calls what it is given after every step.
        rounds: turns of each.
        steps: timed steps of one turn.

    Returns:
        For each name the times of each round, ms.
    """
    runners = {name: _Runner(loop, steps + 1) for name, loop in loops.items()}
    with no_collection():
        for _ in range(rounds + 1):
            for runner in runners.values():
                runner.turn()
    for runner in runners.values():
        runner.finish()
    return {name: list(_rounds(runner.took, steps + 1))[1:] for name, runner in runners.items()}


def _rounds(took: list[int], each: int) -> Iterable[Times]:
    for start in range(0, len(took), each):
        yield np.asarray(took[start + 1 : start + each], np.float64) / 1e6


class _Runner:
    """A loop in a thread, which is stopped within ``on_step`` after each turn."""

    def __init__(self, loop: Loop, steps: int) -> None:
        self.took: list[int] = []
        self._steps, self._began = steps, 0
        self._error: BaseException | None = None
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(loop,), daemon=True)
        self._thread.start()

    def turn(self) -> None:
        self._go.release()
        self._done.acquire()
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        self._go.release()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self, loop: Loop) -> None:
        self._go.acquire()
        self._began = perf_counter_ns()
        try:
            loop(self._on_step)
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            self._error = error
            self._done.release()

    def _on_step(self, *_: int) -> None:
        self.took.append(perf_counter_ns() - self._began)
        if len(self.took) % self._steps == 0:
            self._done.release()
            self._go.acquire()
        self._began = perf_counter_ns()
