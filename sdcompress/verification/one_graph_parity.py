"""Hold one graph against the segments it was made of: the same exits and answers on real images, whatever the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import numpy.typing as npt

from sdcompress.policies import restore
from sdcompress.policies._base import SIGNALS_ATOL, Float, Signals
from sdcompress.runtime.engine import Engine
from sdcompress.runtime.gate import gates
from sdcompress.schema.graphs import ANSWER, EXIT_INDEX, LOGITS
from sdcompress.schema.manifest import Manifest
from sdcompress.verification.parity import SMALL_BATCHES, SMALL_SAMPLES, Finding
from sdcompress.verification.sessions import Chain

__all__ = ["Agreement", "agreement", "graph_batches", "runner"]


Run = Callable[[Float], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Agreement:
    """One graph beside its segments.

    Attributes:
        findings: for each exit what was seen of the images that leave there; a problem says what is wrong.
        left: int64 [N], where the segments let each image leave.
        undecided: images that left elsewhere because a rounding decides whether they pass a threshold.
    """

    findings: tuple[Finding, ...]
    left: npt.NDArray[np.int64]
    undecided: int

    @property
    def max_abs(self) -> float:
        """The largest difference of a logit."""
        return max(finding.max_abs or 0.0 for finding in self.findings)


def agreement(
    run: Run, engine: Engine, inputs: Float, *, batches: Sequence[int], allowed: Sequence[float]
) -> Agreement:
    """Compare on all inputs in the largest batch, and on the first 28 of them in the smaller ones.

    Args:
        run: the graph, inputs -> its outputs by name.
        engine: over the segments, with the policy.
        inputs: float32 [N, C, H, W].
        batches: sizes, rising.
        allowed: for each exit how far a logit may be off.
    """
    tally = _Tally(engine, allowed)
    for size in batches:
        count = len(inputs) if size == batches[-1] else min(SMALL_SAMPLES, len(inputs))
        seen = [tally.compare(run, inputs[at : at + size], at) for at in range(0, count, size)]
    return Agreement(tally.findings(batches), np.concatenate(seen), len(tally.undecided))


def graph_batches(kind: Literal["graph", "if"], largest: int) -> tuple[int, ...]:
    """The batch sizes in which a graph of this kind is held against the segments, rising."""
    return (1,) if kind == "if" else tuple(sorted({*SMALL_BATCHES, largest}))


def runner(graph: bytes, manifest: Manifest) -> Chain:
    """One graph in ONNX Runtime, as anybody would run it, with one thread."""
    return Chain([graph], network_input=manifest.input.name, logits=[LOGITS], threads=1)


class _Tally:
    """Adds up what is seen in batch after batch."""

    def __init__(self, engine: Engine, allowed: Sequence[float]) -> None:
        assert engine.policy is not None
        policy = restore(engine.policy.kind, engine.policy.parameters)
        self._gates = gates(policy, engine.policy.thresholds)
        self._engine, self._allowed = engine, np.asarray(allowed)
        self._largest = np.zeros(len(allowed))
        self._rows: list[set[int]] = [set() for _ in allowed]
        self._wrong: list[set[int]] = [set() for _ in allowed]
        self.undecided: set[int] = set()

    def compare(self, run: Run, inputs: Float, first: int) -> npt.NDArray[np.int64]:
        """Compare one batch, whose first image has the position ``first``; returns where the segments let it leave."""
        found, told = run(inputs), self._engine(inputs)
        off = np.abs(found[LOGITS] - told.logits).max(axis=1)
        for row, exit_ in enumerate(told.exit_index):
            self._rows[exit_].add(first + row)
            if found[EXIT_INDEX][row] != exit_:
                undecided = self._undecided(inputs[row : row + 1], min(exit_, found[EXIT_INDEX][row]))
                (self.undecided if undecided else self._wrong[exit_]).add(first + row)
                continue
            # not "larger than": a difference that is NaN is none that is allowed
            self._largest[exit_] = np.maximum(self._largest[exit_], off[row])
            second, best = np.sort(told.logits[row])[-2:]
            other = found[ANSWER][row] != told.logits[row].argmax() and best - second > 2 * self._allowed[exit_]
            if other or not off[row] <= self._allowed[exit_]:
                self._wrong[exit_].add(first + row)
        return told.exit_index

    def _undecided(self, image: Float, exit_: int) -> bool:
        """Whether signals that are a rounding off would decide otherwise at this exit."""
        signals, gate = self._engine.signals(image)[: exit_ + 1], self._gates[exit_]
        steps = product((np.float32(SIGNALS_ATOL), np.float32(-SIGNALS_ATOL)), repeat=len(signals[0].columns))
        return len({bool(gate([_shifted(exit_, shifts) for exit_ in signals])[0]) for shifts in steps}) > 1

    def findings(self, batches: Sequence[int]) -> tuple[Finding, ...]:
        """One for each exit."""
        return tuple(self._finding(exit_, name, batches) for exit_, name in enumerate(self._engine.exit_names))

    def _finding(self, exit_: int, name: str, batches: Sequence[int]) -> Finding:
        rows, wrong = self._rows[exit_], sorted(self._wrong[exit_])
        largest, allowed = float(self._largest[exit_]), float(self._allowed[exit_])
        problem = ""
        if wrong:
            problem = (
                f"{len(wrong)} of {len(rows)} images leave elsewhere or with another answer, "
                f"logits are off by up to {largest:.2g} (allowed {allowed:.2g})"
            )
        finite = largest if np.isfinite(largest) else None
        return Finding(name, len(rows), tuple(batches), finite, allowed, len(wrong), tuple(wrong[:8]), problem)


def _shifted(signals: Signals, shifts: Sequence[np.float32]) -> Signals:
    """The signals with each column moved by its shift."""
    columns = zip(signals.columns.items(), shifts, strict=True)
    return Signals({name: column + shift for (name, column), shift in columns}, signals.decision)
