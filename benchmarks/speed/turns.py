"""Candidates that take turns (ABAB...), so that each ratio is of times that were measured under the same mood."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from multiprocessing import Pipe, get_context
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from sdcompress.benchmarking.timed_calls import no_collection

Times = npt.NDArray[np.float64]
Loop = Callable[[Callable[..., None]], Any]


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


def loops_in_turn(loops: dict[str, Loop], *, rounds: int, steps: int) -> tuple[dict[str, list[Times]], dict[str, Any]]:
    """Time the steps of whole training loops, each as it is: a step lasts from one call of ``on_step`` to the next.

    Each loop has a process of its own, and one at a time runs. It makes ``steps_of(rounds, steps)`` steps.

    Args:
        loops: by name; each calls what it is given after every step, and may return something to look at.
        rounds: turns of each.
        steps: timed steps of one turn.

    Returns:
        For each name the times of each round, ms; and what it returned.
    """
    runners = {name: _Runner(loop, steps + 1) for name, loop in loops.items()}
    for _ in range(rounds + 1):
        for runner in runners.values():
            runner.turn()
    ends = {name: runner.finish() for name, runner in runners.items()}
    times = {name: list(_rounds(took, steps + 1))[1:] for name, (took, _) in ends.items()}
    return times, {name: found for name, (_, found) in ends.items()}


def _rounds(took: list[int], each: int) -> Iterable[Times]:
    for start in range(0, len(took), each):
        yield np.asarray(took[start + 1 : start + each], np.float64) / 1e6


class _Runner:
    """A loop in a process of its own, which waits within ``on_step`` after each turn.

    In a thread beside others it would not have the memory that it has when it trains alone: glibc gives each thread a
    heap of its own, which it shrinks and faults in again at other times than the main one.
    """

    def __init__(self, loop: Loop, steps: int) -> None:
        self._steps, self._took, self._began = steps, list[int](), 0
        self._here, self._there = Pipe()
        self._process = get_context("fork").Process(target=self._run, args=(loop,), daemon=True)
        self._process.start()

    def turn(self) -> None:
        """Let the loop make its next steps."""
        self._here.send(None)
        self._answer()

    def finish(self) -> tuple[list[int], Any]:
        """Let the loop end: the time of each step, ns, and what it returned."""
        self._here.send(None)
        answer: tuple[list[int], Any] = self._answer()
        self._process.join()
        return answer

    def _answer(self) -> Any:
        while not self._here.poll(1.0):
            assert self._process.is_alive(), "a loop has failed; see above"
        return self._here.recv()

    def _run(self, loop: Loop) -> None:
        self._there.recv()
        with no_collection():
            self._began = perf_counter_ns()
            found = loop(self._on_step)
        self._there.send((self._took, found))

    def _on_step(self, *_: int) -> None:
        self._took.append(perf_counter_ns() - self._began)
        if len(self._took) % self._steps == 0:
            self._there.send(None)
            self._there.recv()
        self._began = perf_counter_ns()
