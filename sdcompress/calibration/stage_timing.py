"""Measure the time of each stage of a cascade, for one sample and in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from time import perf_counter_ns
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sdcompress.data.samples import Samples
from sdcompress.modalities import Inputs
from sdcompress.policies import gates
from sdcompress.policies._base import ExitPolicy, Signals
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.cost_model import sample_size
from sdcompress.runtime.engine import Engine
from sdcompress.schema.manifest import Manifest, Policy, StageTimes, Tensor

__all__ = [
    "CallTimes",
    "call_times",
    "compared_ms",
    "decision_ms",
    "interleaved_ms",
    "stage_ms",
    "stage_times",
    "timing_inputs",
]

Call = Callable[[Inputs], object]
Rows = npt.NDArray[np.int64]

_SAMPLES = 64
_WARMUP_ROUNDS = 3
_MIN_ROUNDS, _MAX_ROUNDS = 5, 500
_MIN_MS = 1e-3  # the noise of the clock
_ROWS = (1, 2, 4, 8, 16, 32)
_MOVED_ROWS = 16  # at a time, of twice as many
_LEAST_POLICY_SAMPLES, _POLICY_SAMPLES, _MAX_CALLS = 16, 256, 5000
_LEAST_OF_EXIT = 2  # in each round
_MOST_SIZED = 4096  # samples whose size is looked at


class CallTimes(NamedTuple):
    """What a sample takes under a policy, at batch 1.

    Attributes:
        overhead: measured time of all calls, divided by the stage and decision times that they need. What exceeds 1 is
            the transition between stages, and caches that hold data of other stages.
        exit_ms: [E], mean ms of the samples that take each exit; None: no timed sample took it.
    """

    overhead: float
    exit_ms: tuple[float | None, ...]


def stage_ms(engine: Engine, samples: Samples, *, seconds: float = 1.0) -> tuple[float, ...]:
    """Return the milliseconds from one exit to the next at batch 1, [E].

    All exits run on real examples in interleaved rounds, in random order. So a slow moment of the machine affects them
    alike, and caches are as cold as with samples that exit at different exits. The time up to an exit is the median of
    the means of five stretches, so that a stall does not count. The time of a stage is the difference of two exits.

    Args:
        engine: runs the stages.
        samples: source of the examples.
        seconds: longest time to measure, unless five rounds take longer.
    """
    return tuple(float(ms) for ms in _stage_ms(engine, timing_inputs(engine, samples), 1, seconds))


def stage_times(engine: CascadeEngine, manifest: Manifest, samples: Samples, *, seconds: float = 0.5) -> StageTimes:
    """Return the stage times for several numbers of rows, and the time to move a row.

    Args:
        engine: runs the stages.
        manifest: of its artifact.
        samples: source of the examples.
        seconds: longest time to measure each number of rows, unless five rounds take longer. Numbers of rows above 1
            whose five rounds would take more than four times as long are left out.
    """
    inputs = timing_inputs(engine, samples, _ROWS[-1])
    sizes = {
        axis: size
        for tensor in manifest.inputs
        for axis, size in zip(tensor.shape, inputs.arrays[tensor.name].shape, strict=True)
        if isinstance(axis, str)
    }
    stage_times_ms: list[npt.NDArray[np.float64]] = []
    for rows in _ROWS:
        if stage_times_ms and _MIN_ROUNDS * 2 * stage_times_ms[-1].sum() > 4000 * seconds:
            break
        stage_times_ms.append(_stage_ms(engine, inputs, rows, seconds))
    # differences of medians are noisy; no stage takes less time with more rows
    rising = np.maximum.accumulate(np.stack(stage_times_ms, axis=1), axis=1)
    measured = _ROWS[: len(stage_times_ms)]
    return StageTimes(
        rows=measured,
        sizes=tuple(_mean_size(manifest, inputs, rows) for rows in measured) if len(sizes) > 1 else (),
        ms=tuple(tuple(float(ms) for ms in stage) for stage in rising),
        move_ms=tuple(_move_ms(engine, manifest, k, sizes) for k in range(len(manifest.exits) - 1)),
    )


def call_times(
    engine: CascadeEngine,
    samples: Samples,
    policy: Policy,
    temperatures: Sequence[float],
    exit_index: npt.NDArray[np.int64],
    *,
    seconds: float = 2.0,
    clock: Callable[[], int] = perf_counter_ns,
) -> CallTimes:
    """Return the times of samples that exit by the policy, measured on those that take each exit.

    One sample at a time, in random order, so that caches are as cold as in service. Up to 256 samples represent all:
    they have about the same exit shares and, where inputs vary in size, the same sizes at each exit. They run in at
    least five rounds. Nothing is trimmed, because a mean that users measure has the stalls of the machine too.

    Args:
        engine: of the artifact.
        samples: N samples, those that the shares of the policy count.
        policy: with its thresholds, and stage and decision times.
        temperatures: of every exit.
        exit_index: exit of each sample under the policy, int64 [N].
        seconds: longest time to measure, unless five rounds of 16 samples take longer.
        clock: what is read, ns; it takes the place of ``perf_counter_ns``.
    """
    cascade, exits = engine.with_policy(policy, temperatures), len(policy.shares)
    reach = np.asarray(policy.reach_ms)
    count = _affordable(float(reach[exit_index].mean()), 1, seconds, _POLICY_SAMPLES)
    inputs = _one_by_one(engine, samples, _representative(engine, samples, exit_index, count))
    order, ms, calls = np.random.default_rng(0), np.zeros(exits), np.zeros(exits)
    for row in np.linspace(0, len(inputs) - 1, _WARMUP_ROUNDS).astype(int):  # the last one takes the deepest exit
        cascade(inputs[row])
    deadline, rounds = clock() + int(seconds * 1e9), 0
    while rounds < _MIN_ROUNDS or (clock() < deadline and rounds * len(inputs) < _MAX_CALLS):
        for row in order.permutation(len(inputs)):
            start = clock()
            exit_ = int(cascade(inputs[row]).exit_index[0])
            ms[exit_] += (clock() - start) / 1e6
            calls[exit_] += 1
        rounds += 1
    means = tuple(float(total / taken) if taken else None for total, taken in zip(ms, calls, strict=True))
    return CallTimes(float(ms.sum() / (calls @ reach)), means)


def compared_ms(
    calls: Sequence[Call],
    engine: CascadeEngine,
    samples: Samples,
    exit_index: npt.NDArray[np.int64],
    *,
    usual_ms: float,
    seconds: float = 1.0,
) -> npt.NDArray[np.float64]:
    """Return the mean milliseconds of calls that are compared, over samples of which a few of each exit are timed.

    The exits count by their shares of all samples, so that the mean does not depend on which few are timed. All calls
    take the same samples in each round; the time of a sample is the median of at least five rounds.

    Args:
        calls: each takes inputs.
        engine: of the artifact.
        samples: N samples.
        exit_index: exit of each sample under the policy that is compared, int64 [N].
        usual_ms: of a call, which decides how many samples are timed.
        seconds: longest time to measure, unless five rounds of 16 samples take longer.
    """
    rows = _representative(engine, samples, exit_index, _affordable(usual_ms, len(calls), seconds, _SAMPLES))
    inputs, order, rounds = _one_by_one(engine, samples, rows), np.random.default_rng(0), list[list[list[int]]]()
    for call in calls:
        for row in inputs[-_WARMUP_ROUNDS:]:  # the last ones take the deepest exit
            call(row)
    deadline = perf_counter_ns() + int(seconds * 1e9)
    while len(rounds) < _MIN_ROUNDS or (perf_counter_ns() < deadline and len(rounds) * len(inputs) < _MAX_ROUNDS):
        times_ns = [[0] * len(calls) for _ in inputs]
        for row in order.permutation(len(inputs)):
            for k in order.permutation(len(calls)):
                times_ns[row][k] = _nanoseconds(calls[k], inputs[row])
        rounds.append(times_ns)
    ms = np.median(np.array(rounds, np.float64), axis=0) / 1e6  # [samples, calls]
    exits, counts = exit_index[rows], np.bincount(exit_index)
    timed = np.unique(exits)
    return np.average([ms[exits == exit_].mean(axis=0) for exit_ in timed], axis=0, weights=counts[timed])


def decision_ms(policy: ExitPolicy, signals: Sequence[Signals]) -> tuple[float, ...]:
    """Return the milliseconds of one decision at each exit but the last, [E-1]: the median over samples.

    Args:
        policy: fitted.
        signals: of the E exits on the same samples.
    """
    rows = [[s.map(itemgetter(slice(row, row + 1))) for s in signals] for row in range(_SAMPLES)]
    medians_ms = []
    for k, gate in enumerate(gates(policy, (0.5,) * (len(signals) - 1))):
        times_ns = []
        for row in rows[: len(signals[0].decision)] * _WARMUP_ROUNDS:
            start = perf_counter_ns()
            gate(row[: k + 1])
            times_ns.append(perf_counter_ns() - start)
        medians_ms.append(float(np.median(times_ns)) / 1e6)
    return tuple(medians_ms)


def timing_inputs(engine: Engine, samples: Samples, count: int = _SAMPLES) -> Inputs:
    """Return inputs of ``count`` real examples; they repeat if there are fewer."""
    chosen = np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(np.int64)
    return engine.modality.collate(samples.examples(chosen))[np.arange(count) % len(chosen)]


def _representative(engine: Engine, samples: Samples, exit_index: npt.NDArray[np.int64], count: int) -> Rows:
    """Return the rows of about ``count`` samples, evenly spread over the exits and over the sizes at each exit.

    An exit that few samples take gets two at least, because other data may take it more often.
    """
    known = np.linspace(0, len(samples) - 1, min(_MOST_SIZED, len(samples))).astype(np.int64)
    sizes = np.zeros(len(known), np.int64)
    if engine.modality.varies:
        sizes = engine.modality.collate(samples.examples(known)).lengths
    in_order, chosen = known[np.lexsort((sizes, exit_index[known]))], list[Rows]()
    for exit_ in np.unique(exit_index[known]):
        takes_it = in_order[exit_index[in_order] == exit_]
        of_exit = max(_LEAST_OF_EXIT, round(count * len(takes_it) / len(known)))
        chosen.append(takes_it[((np.arange(of_exit) + 0.5) * len(takes_it) / of_exit).astype(np.int64)])
    return np.concatenate(chosen)


def _one_by_one(engine: Engine, samples: Samples, rows: Rows) -> list[Inputs]:
    """Return the inputs of each of these samples by itself: in a batch the shorter ones would be padded."""
    return [engine.modality.collate(samples.examples(np.array([row]))) for row in rows]


def _affordable(usual_ms: float, calls: int, seconds: float, most: int) -> int:
    """Return how many samples fit into ``_MIN_ROUNDS`` rounds of so many calls each."""
    return int(np.clip(1000 * seconds / _MIN_ROUNDS / calls / max(usual_ms, _MIN_MS), _LEAST_POLICY_SAMPLES, most))


def _mean_size(manifest: Manifest, inputs: Inputs, rows: int) -> float:
    """Return the mean of ``sample_size`` over the batches that ``_stage_ms`` times."""
    starts = range(0, len(inputs) // rows * rows, rows)
    return float(np.mean([sample_size(manifest.inputs, inputs[start : start + rows]) for start in starts]))


def _stage_ms(engine: Engine, inputs: Inputs, rows: int, seconds: float) -> npt.NDArray[np.float64]:
    """Return the milliseconds from one exit to the next with this number of rows, [E]; see ``stage_ms``."""
    calls = [partial(engine.forced, exit=k) for k in range(len(engine.exit_names))]
    reach_ms = interleaved_ms(calls, inputs, rows, seconds)
    return np.asarray(np.maximum(np.diff(reach_ms, prepend=0.0), _MIN_MS))


def interleaved_ms(
    calls: Sequence[Call], inputs: Inputs, rows: int = 1, seconds: float = 1.0
) -> npt.NDArray[np.float64]:
    """Return the mean milliseconds of calls that are compared, measured as ``stage_ms`` measures exits.

    Args:
        calls: each takes inputs.
        inputs: of N samples, which the calls get in turn.
        rows: of a call.
        seconds: longest time to measure, unless five rounds take longer.
    """
    batches, order = len(inputs) // rows, np.random.default_rng(0)
    rounds: list[list[int]] = []
    deadline = perf_counter_ns() + int(seconds * 1e9)
    while len(rounds) < _WARMUP_ROUNDS + _MIN_ROUNDS or (perf_counter_ns() < deadline and len(rounds) < _MAX_ROUNDS):
        start = len(rounds) % batches * rows
        times_ns = [0] * len(calls)
        for k in order.permutation(len(calls)):
            times_ns[k] = _nanoseconds(calls[k], inputs[start : start + rows])
        rounds.append(times_ns)
    stretches = np.array_split(np.array(rounds[_WARMUP_ROUNDS:], np.float64), _MIN_ROUNDS)
    return np.asarray(np.median([stretch.mean(axis=0) for stretch in stretches], axis=0) / 1e6)


def _move_ms(engine: CascadeEngine, manifest: Manifest, k: int, sizes: Mapping[str, int]) -> float:
    """Return the milliseconds to move one row of all tensors behind exit k: of the engine, else of numpy."""
    engine_move_ms = engine.move_ms(k)
    return _numpy_move_ms(manifest.live_tensors(k), sizes) if engine_move_ms is None else engine_move_ms


def _numpy_move_ms(border: Sequence[Tensor], sizes: Mapping[str, int]) -> float:
    """Return the milliseconds to move one row of all these tensors; ``sizes`` are those of named axes."""
    longest = max(sizes.values())  # of axes that a graph computes from others
    shapes = [[sizes.get(axis, longest) if isinstance(axis, str) else axis for axis in t.shape[1:]] for t in border]
    tensors = [np.zeros((2 * _MOVED_ROWS, *shape), t.dtype) for t, shape in zip(border, shapes, strict=True)]
    movers = np.arange(_MOVED_ROWS) * 2
    times_ns = []
    for _ in range(_WARMUP_ROUNDS + _MIN_ROUNDS):
        start = perf_counter_ns()
        for tensor in tensors:
            tensor[movers] = tensor[movers + 1]
        times_ns.append(perf_counter_ns() - start)
    return float(np.median(times_ns[_WARMUP_ROUNDS:])) / _MOVED_ROWS / 1e6


def _nanoseconds(call: Call, inputs: Inputs) -> int:
    start = perf_counter_ns()
    call(inputs)
    return perf_counter_ns() - start
