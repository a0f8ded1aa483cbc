"""Measure the time of each stage of a cascade, for one sample and in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from time import perf_counter_ns

import numpy as np
import numpy.typing as npt

from sdcompress.data.samples import Samples
from sdcompress.modalities import Inputs
from sdcompress.policies import gates
from sdcompress.policies._base import ExitPolicy, Signals
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.engine import Engine
from sdcompress.schema.manifest import Manifest, Policy, StageTimes, Tensor

__all__ = ["decision_ms", "overhead", "stage_ms", "stage_times"]

_SAMPLES = 64
_WARMUP_ROUNDS = 3
_LEAST_ROUNDS, _MOST_ROUNDS = 5, 500
_LEAST_MS = 1e-3  # a stage as short as the clock's own noise
_ROWS = (1, 2, 4, 8, 16, 32)
_MOVED = 16  # rows at a time, of twice as many
_LEAVING, _MOST_CALLS = 256, 5000  # samples whose mix of exits is like that of all


def stage_ms(engine: Engine, samples: Samples, *, seconds: float = 1.0) -> tuple[float, ...]:
    """Milliseconds from one exit to the next at batch 1, one per exit.

    All exits take turns on real examples, in random order, so that a slow moment of the machine hits them alike and the
    caches are as cold as where samples leave at different exits. The cost of an exit is a mean, because a mean is what
    they will be used for: the median of the means of five stretches, so that a stall does not count. That of a stage is
    the difference of two exits.

    Args:
        engine: runs the stages.
        samples: where the examples come from.
        seconds: the longest to measure, unless five rounds take longer.
    """
    reached = _reached(engine, _inputs(engine, samples, _SAMPLES), 1, seconds)
    return tuple(float(ms) for ms in np.maximum(np.diff(reached, prepend=0.0), _LEAST_MS))


def stage_times(engine: CascadeEngine, manifest: Manifest, samples: Samples, *, seconds: float = 0.5) -> StageTimes:
    """Return the stage times for several numbers of rows, and the time to move a row.

    Args:
        engine: runs the stages.
        manifest: of its artifact.
        samples: where the examples come from.
        seconds: the longest to measure each number of rows, unless five rounds take longer; numbers of rows whose five
            rounds would take more than four times as long are left out, but for 1.
    """
    inputs = _inputs(engine, samples, _ROWS[-1])
    sizes = {
        axis: size
        for tensor in manifest.inputs
        for axis, size in zip(tensor.shape, inputs.arrays[tensor.name].shape, strict=True)
        if isinstance(axis, str)
    }
    stage_times_ms: list[npt.NDArray[np.float64]] = []
    for rows in _ROWS:
        if stage_times_ms and _LEAST_ROUNDS * 2 * stage_times_ms[-1].sum() > 4000 * seconds:
            break
        stage_times_ms.append(np.maximum(np.diff(_reached(engine, inputs, rows, seconds), prepend=0.0), _LEAST_MS))
    # differences of medians are noisy; no stage takes less time with more rows
    rising = np.maximum.accumulate(np.stack(stage_times_ms, axis=1), axis=1)
    return StageTimes(
        rows=_ROWS[: len(stage_times_ms)],
        ms=tuple(tuple(float(ms) for ms in stage) for stage in rising),
        move_ms=tuple(_move_ms(engine, manifest, exit_, sizes) for exit_ in range(len(manifest.exits) - 1)),
    )


def overhead(
    engine: CascadeEngine, samples: Samples, policy: Policy, temperatures: Sequence[float], *, seconds: float = 1.0
) -> float:
    """Return the ratio of measured time to summed stage and decision times, for samples that exit by the policy.

    One sample at a time, in random order; the median of five stretches, as in ``stage_ms``. An excess over 1 is
    the transition between stages, and caches that hold data of other stages.

    Args:
        engine: over the artifact.
        samples: where the examples come from.
        policy: with its thresholds, and the times that are added up.
        temperatures: of every exit.
        seconds: the longest to measure, unless 64 samples take longer.
    """
    running, inputs = engine.with_policy(policy, temperatures), _inputs(engine, samples, _LEAVING)
    order, reach = np.random.default_rng(0), policy.reach_ms
    calls: list[tuple[int, float]] = []  # measured, and added up
    deadline = perf_counter_ns() + int(seconds * 1e9)
    while len(calls) < _WARMUP_ROUNDS + _SAMPLES or (perf_counter_ns() < deadline and len(calls) < _MOST_CALLS):
        row = int(order.integers(len(inputs)))
        start = perf_counter_ns()
        left = running(inputs[row : row + 1]).exit_index
        calls.append((perf_counter_ns() - start, 1e6 * reach[int(left[0])]))
    stretches = np.array_split(np.array(calls[_WARMUP_ROUNDS:]), _LEAST_ROUNDS)
    return float(np.median([measured / summed for measured, summed in (part.sum(axis=0) for part in stretches)]))


def decision_ms(policy: ExitPolicy, signals: Sequence[Signals]) -> tuple[float, ...]:
    """Return the milliseconds to judge one sample at each exit but the last: the median over samples, once warm.

    Args:
        policy: fitted.
        signals: of the E exits on the same samples.
    """
    rows = [[s.map(itemgetter(slice(row, row + 1))) for s in signals] for row in range(_SAMPLES)]
    medians_ms = []
    for exit_, gate in enumerate(gates(policy, (0.5,) * (len(signals) - 1))):
        times_ns = []
        for row in rows[: len(signals[0].decision)] * _WARMUP_ROUNDS:
            start = perf_counter_ns()
            gate(row[: exit_ + 1])
            times_ns.append(perf_counter_ns() - start)
        medians_ms.append(float(np.median(times_ns)) / 1e6)
    return tuple(medians_ms)


def _inputs(engine: Engine, samples: Samples, count: int) -> Inputs:
    """Inputs of real examples; the same again where there are too few."""
    chosen = np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(np.int64)
    return engine.modality.collate(samples.examples(chosen))[np.arange(count) % len(chosen)]


def _reached(engine: Engine, inputs: Inputs, rows: int, seconds: float) -> npt.NDArray[np.float64]:
    """Milliseconds until each exit, [E], with so many rows; see ``stage_ms``."""
    exits, batches, order = len(engine.exit_names), len(inputs) // rows, np.random.default_rng(0)
    rounds: list[list[int]] = []
    deadline = perf_counter_ns() + int(seconds * 1e9)
    while len(rounds) < _WARMUP_ROUNDS + _LEAST_ROUNDS or (perf_counter_ns() < deadline and len(rounds) < _MOST_ROUNDS):
        start = len(rounds) % batches * rows
        times_ns = [0] * exits
        for exit_ in order.permutation(exits):
            times_ns[exit_] = _nanoseconds(engine, inputs[start : start + rows], int(exit_))
        rounds.append(times_ns)
    stretches = np.array_split(np.array(rounds[_WARMUP_ROUNDS:], np.float64), _LEAST_ROUNDS)
    return np.asarray(np.median([stretch.mean(axis=0) for stretch in stretches], axis=0) / 1e6)


def _move_ms(engine: CascadeEngine, manifest: Manifest, exit_: int, sizes: Mapping[str, int]) -> float:
    """To put one row of all tensors that go on in the place of another: as the engine says, else as numpy does it."""
    engine_move_ms = engine.move_ms(exit_)
    return _numpy_move_ms(manifest.live_tensors(exit_), sizes) if engine_move_ms is None else engine_move_ms


def _numpy_move_ms(border: Sequence[Tensor], sizes: Mapping[str, int]) -> float:
    """Return the milliseconds to put one row of all these tensors in the place of another.

    Args:
        border: tensors that go on.
        sizes: of named axes.
    """
    longest = max(sizes.values())  # of axes that a graph computes from others
    shapes = [[sizes.get(axis, longest) if isinstance(axis, str) else axis for axis in t.shape[1:]] for t in border]
    tensors = [np.zeros((2 * _MOVED, *shape), t.dtype) for t, shape in zip(border, shapes, strict=True)]
    movers = np.arange(_MOVED) * 2
    times_ns = []
    for _ in range(_WARMUP_ROUNDS + _LEAST_ROUNDS):
        start = perf_counter_ns()
        for tensor in tensors:
            tensor[movers] = tensor[movers + 1]
        times_ns.append(perf_counter_ns() - start)
    return float(np.median(times_ns[_WARMUP_ROUNDS:])) / _MOVED / 1e6


def _nanoseconds(engine: Engine, inputs: Inputs, position: int) -> int:
    start = perf_counter_ns()
    engine.forced(inputs, position)
    return perf_counter_ns() - start
