"""Compare one graph with the segments it was merged from: exits, decisions and outputs, in several batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
import numpy.typing as npt

from sdcompress.modalities import Inputs
from sdcompress.policies import gates, restore
from sdcompress.policies._base import Signals
from sdcompress.runtime.engine import Engine
from sdcompress.schema.graphs import DECISION, EXIT_INDEX, OUTPUTS
from sdcompress.verification.parity import SMALL_BATCHES, SMALL_SAMPLES, Finding, signals_tolerance
from sdcompress.verification.sessions import SegmentSessions

__all__ = ["OneGraphParity", "compare_one_graph", "graph_batches", "one_graph_session"]


_ROUNDED = np.float32(1e-3)  # of a difference of two numbers, each of which is rounded

Run = Callable[[Inputs], dict[str, np.ndarray]]


@dataclass(frozen=True)
class OneGraphParity:
    """One graph compared with its segments.

    Attributes:
        findings: one for each exit, of the samples that take it.
        exit_index: int64 [N], the exit that each of the inputs takes in the segments.
        near_threshold: samples that take another exit because their score is within a rounding of a threshold, or that
            are decided otherwise because two outputs are.
    """

    findings: tuple[Finding, ...]
    exit_index: npt.NDArray[np.int64]
    near_threshold: int

    @property
    def max_abs_diff(self) -> float:
        """Return the largest difference of an output."""
        return max(finding.max_abs_diff or 0.0 for finding in self.findings)


def compare_one_graph(
    run: Run,
    engine: Engine,
    inputs: Inputs,
    *,
    batches: Sequence[int],
    allowed: Sequence[float],
    further: Iterable[Inputs] = (),
) -> OneGraphParity:
    """Compare on all inputs in the largest batch, and on the first 28 of them in smaller batches.

    Args:
        run: the graph, inputs -> its outputs by name.
        engine: over the segments, with the policy.
        inputs: of N samples.
        batches: sizes, rising.
        allowed: for each exit the largest absolute difference of an output.
        further: inputs that are compared one sample at a time.
    """
    tally = _Tally(engine, allowed)
    for size in batches:
        count = len(inputs) if size == batches[-1] else min(SMALL_SAMPLES, len(inputs))
        exit_indices = [tally.compare(run, inputs[start : start + size], start) for start in range(0, count, size)]
    position = len(inputs)
    for part in further:
        for row in range(len(part)):
            tally.compare(run, part[row : row + 1], position + row)
        position += len(part)
    return OneGraphParity(tally.findings(batches), np.concatenate(exit_indices), len(tally.near_threshold))


def graph_batches(kind: Literal["graph", "if"], largest: int) -> tuple[int, ...]:
    """Return the batch sizes in which a graph of this kind is compared with the segments, rising."""
    return (1,) if kind == "if" else tuple(sorted({*SMALL_BATCHES, largest}))


def one_graph_session(graph: bytes) -> SegmentSessions:
    """Return one graph in ONNX Runtime with one thread."""
    return SegmentSessions([graph], outputs=[OUTPUTS], threads=1)


class _Tally:
    """Accumulates the comparison over batches."""

    def __init__(self, engine: Engine, allowed: Sequence[float]) -> None:
        assert engine.policy is not None
        policy = restore(engine.policy.name, engine.policy.parameters, engine.task)
        self._gates = gates(policy, engine.policy.thresholds)
        self._engine, self._allowed = engine, np.asarray(allowed)
        self._largest = np.zeros(len(allowed))
        self._rows: list[set[int]] = [set() for _ in allowed]
        self._failed: list[set[int]] = [set() for _ in allowed]
        self.near_threshold: set[int] = set()

    def compare(self, run: Run, inputs: Inputs, first: int) -> npt.NDArray[np.int64]:
        """Compare one batch, whose first sample has the position ``first``; returns the segments' exit index."""
        outputs, expected, task = run(inputs), self._engine(inputs), self._engine.task
        errors = np.abs(outputs[OUTPUTS] - expected.outputs).reshape(len(inputs), -1).max(axis=1)
        inconsistent = task.flips(outputs[DECISION], task.decide(outputs[OUTPUTS]))
        flipped = task.flips(outputs[DECISION], task.decide(expected.outputs))
        for row, exit_ in enumerate(expected.exit_index):
            self._rows[exit_].add(first + row)
            if outputs[EXIT_INDEX][row] != exit_:
                near_threshold = self._undecided(inputs[row : row + 1], min(exit_, outputs[EXIT_INDEX][row]))
                (self.near_threshold if near_threshold else self._failed[exit_]).add(first + row)
                continue
            # "not <=" instead of ">", so that NaN fails
            self._largest[exit_] = np.maximum(self._largest[exit_], errors[row])
            if inconsistent[row] or not errors[row] <= self._allowed[exit_]:
                self._failed[exit_].add(first + row)
            elif flipped[row]:
                self.near_threshold.add(first + row)
        return expected.exit_index

    def _undecided(self, sample: Inputs, exit_: int) -> bool:
        """Whether signals that are a rounding off would change the decision at this exit."""
        signals, gate = self._engine.signals(sample)[: exit_ + 1], self._gates[exit_]
        shift = np.float32(max(signals_tolerance(each.stacked()) for each in signals))
        steps = product((shift, -shift), repeat=len(signals[0].columns))
        return len({bool(gate([_shifted(exit_, shifts) for exit_ in signals])[0]) for shifts in steps}) > 1

    def findings(self, batches: Sequence[int]) -> tuple[Finding, ...]:
        """Return one finding for each exit."""
        return tuple(self._finding(exit_, name, batches) for exit_, name in enumerate(self._engine.exit_names))

    def _finding(self, exit_: int, name: str, batches: Sequence[int]) -> Finding:
        rows, failed = self._rows[exit_], sorted(self._failed[exit_])
        largest, allowed = float(self._largest[exit_]), float(self._allowed[exit_])
        problem = ""
        if failed:
            problem = (
                f"{len(failed)} of {len(rows)} samples take another exit or get another decision, "
                f"outputs are off by up to {largest:.2g} (allowed {allowed:.2g})"
            )
        finite = largest if np.isfinite(largest) else None
        return Finding(name, len(rows), tuple(batches), finite, allowed, len(failed), tuple(failed[:8]), problem)


def _shifted(signals: Signals, shifts: Sequence[np.float32]) -> Signals:
    """The signals with each column moved by its shift, and the resolution of decisions by the share of the first.

    Changes of numbers are measured in units of the resolution.
    """
    if signals.resolution is not None:
        signals = replace(signals, resolution=signals.resolution * (1 + _ROUNDED * np.sign(shifts[0])))
    columns = zip(signals.columns.items(), shifts, strict=True)
    return replace(signals, columns={name: column + shift for (name, column), shift in columns})
