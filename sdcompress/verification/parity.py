"""Compare an export's outputs with the checkpoint's, on real examples.

For each exit, over 256 examples or more (or all held-out ones), in batches of 1, 2, 7 and the largest:

- every output is finite and |output - reference| <= atol + rtol * max|reference|, so that a decision changes only
  where the reference is that close to another;
- an example's outputs do not depend on the other examples of its batch.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdcompress.policies._base import SIGNALS_ATOL, SIGNALS_RTOL
from sdcompress.schema.manifest import ParityRecord
from sdcompress.schema.recipe import Export
from sdcompress.tasks import Task

__all__ = [
    "Finding",
    "allowance",
    "compare_outputs",
    "count_flips",
    "describe_failures",
    "records",
    "signals_tolerance",
    "weaker",
    "write_findings",
]

SMALL_BATCHES = (1, 2, 7)
SMALL_SAMPLES = 28

Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Finding:
    """The comparison of one exit.

    Attributes:
        exit: its name.
        samples: examples compared.
        batches: sizes they were run in.
        max_abs_diff: largest absolute difference of an output; None where one is not finite or nothing could be run.
        allowed: largest ``max_abs_diff`` that passes.
        flips: examples whose decision changed and whose outputs are off by more than the tolerance.
        worst: positions of up to 8 examples with the largest differences, largest first.
        problem: what is wrong, as a sentence; empty if the exit passed.
    """

    exit: str
    samples: int
    batches: tuple[int, ...]
    max_abs_diff: float | None
    allowed: float
    flips: int
    worst: tuple[int, ...]
    problem: str


def compare_outputs(
    load: Callable[[], Run],
    examples: np.ndarray,
    reference: np.ndarray,
    *,
    exits: Sequence[str],
    task: Task,
    settings: Export,
) -> tuple[Finding, ...]:
    """Compare an exported network with the checkpoint, exit by exit.

    Args:
        load: opens the exported network: examples [B, ...] -> outputs [E, B, ...].
        examples: [N, ...], real ones.
        reference: float32 [E, N, ...], the checkpoint's outputs.
        exits: E names.
        task: what the outputs mean.
        settings: tolerances and the largest batch.
    """
    from sdcompress.runtime.backends.onnxruntime import ORT_ERRORS  # machines that build engines may lack onnxruntime

    try:
        run = load()
        outputs = _in_batches(run, examples, settings.parity_max_batch)
        spread, worst = _in_other_batches(run, examples, outputs, reference, settings.parity_max_batch)
    except ORT_ERRORS as error:
        problem = f"it cannot be run in every batch size: {_first_line(error)}"
        return tuple(Finding(name, 0, _batches(settings), None, settings.atol, 0, (), problem) for name in exits)
    findings = []
    for index, name in enumerate(exits):
        moved = (float(spread[index]), float(worst[index]))
        findings.append(_finding(name, outputs[index], moved, reference[index], task=task, settings=settings))
    return tuple(findings)


def allowance(reference: np.ndarray, settings: Export) -> float:
    """Return the tolerance of an output: atol + rtol * the largest absolute output of the exit."""
    return settings.atol + settings.rtol * float(np.abs(reference).max())


def signals_tolerance(expected: np.ndarray) -> float:
    """Return the largest difference of signals that roundings explain: relative where they are large sums of nats.

    Args:
        expected: float32 [B, S].
    """
    largest = float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0))
    return max(SIGNALS_ATOL, SIGNALS_RTOL * largest)


def count_flips(task: Task, runs: Sequence[np.ndarray], reference: np.ndarray, *, allowed: float = -1.0) -> int:
    """Return how many examples get another decision than in the reference, in any run; see ``Task.flips``.

    Args:
        task: what the outputs mean.
        runs: outputs [N, ...] of the same N examples, computed in several ways.
        reference: outputs [N, ...].
        allowed: examples whose outputs are at most this far off are not counted; negative: all count.
    """
    decisions = task.decide(reference)
    changed = [task.flips(task.decide(outputs), decisions) for outputs in runs]
    far = [~(_errors(outputs, reference) <= allowed) for outputs in runs]  # NaN is far
    return int(np.any(np.logical_and(changed, far), axis=0).sum())


def weaker(samples: int, requested: int) -> str:
    """Return a warning for a gate with fewer examples than requested; empty where there are enough.

    No flip among n examples bounds the share of new ones that flip by 1 - 0.05^(1/n), at 95 % confidence.
    """
    if samples >= requested:
        return ""
    bounds = [f"{100 * (1 - 0.05 ** (1 / count)):.1f} %" for count in (samples, requested)]
    return (
        f"Only {samples} held-out examples prove the export, not {requested}. That is weaker: at 95 % confidence up to "
        f"{bounds[0]} of new examples may get another decision than from the checkpoint; {requested} bound it by "
        f"{bounds[1]}."
    )


def records(findings: Sequence[Finding]) -> tuple[ParityRecord, ...]:
    """Return the manifest's records of exits that passed."""
    return tuple(
        ParityRecord(
            exit=finding.exit,
            samples=finding.samples,
            batches=finding.batches,
            max_abs_diff=finding.max_abs_diff or 0.0,
            tolerance=finding.allowed,
            flips=finding.flips,
        )
        for finding in findings
    )


def describe_failures(findings: Sequence[Finding]) -> str:
    """Return the problems of all failed exits as one text; empty if all passed."""
    return "; ".join(f"{finding.exit}: {finding.problem}" for finding in findings if finding.problem)


def write_findings(findings: Sequence[Any], path: Path) -> None:
    """Write the findings, dataclasses of plain values, as JSON; null stands for NaN and infinity, which it lacks."""
    records = [{name: _finite(value) for name, value in dataclasses.asdict(one).items()} for one in findings]
    path.write_text(json.dumps(records, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _in_batches(run: Run, examples: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([run(examples[at : at + size]) for at in range(0, len(examples), size)], axis=1)


def _in_other_batches(
    run: Run, examples: np.ndarray, outputs: np.ndarray, reference: np.ndarray, largest: int
) -> tuple[np.ndarray, np.ndarray]:
    """Run examples singly, in small batches, and in a full batch of shuffled examples.

    Returns:
        The largest distance of each exit's outputs from those that it had before, and from the reference, [E] each.
    """
    few = np.resize(np.arange(len(examples)), SMALL_SAMPLES)  # repeats where there are fewer
    batches = [few[at : at + size] for size in SMALL_BATCHES for at in range(0, len(few), size)]
    batches.append(np.resize(np.random.default_rng(0).permutation(len(examples)), largest))
    distances = []
    for chosen in batches:
        again = run(examples[chosen])
        pairs = [again - outputs[:, chosen], again - reference[:, chosen]]
        distances.append([np.abs(pair).reshape(len(again), -1).max(axis=1) for pair in pairs])
    spread, worst = np.max(distances, axis=0)
    return spread, worst


def _finding(
    name: str,
    outputs: np.ndarray,
    moved: tuple[float, float],
    reference: np.ndarray,
    *,
    task: Task,
    settings: Export,
) -> Finding:
    batches = _batches(settings)
    if not np.isfinite(reference).all():
        problem = "the checkpoint's own outputs are not finite"
        return Finding(name, len(reference), batches, None, settings.atol, 0, (), problem)
    allowed = allowance(reference, settings)
    errors = _errors(outputs, reference)
    flips = count_flips(task, [outputs], reference, allowed=allowed)
    spread, worst = moved[0], float(np.max([errors.max(), moved[1]]))
    finite = bool(np.isfinite(worst))
    problem = ""
    if not finite:
        problem = "outputs are not finite"
    elif spread > allowed:
        problem = (
            f"outputs depend on the other examples of the batch: they change by {spread:.2g} (allowed {allowed:.2g})"
        )
    elif worst > allowed:
        problem = f"outputs are off by {worst:.2g} (allowed {allowed:.2g}), {flips} of {len(outputs)} decisions change"
    order = tuple(int(index) for index in np.argsort(-np.nan_to_num(errors, nan=np.inf), kind="stable")[:8])
    return Finding(name, len(outputs), batches, worst if finite else None, allowed, flips, order, problem)


def _errors(outputs: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The largest absolute difference of each example's outputs, [N]."""
    return np.asarray(np.abs(outputs - reference).reshape(len(reference), -1).max(axis=1))


def _batches(settings: Export) -> tuple[int, ...]:
    return tuple(sorted({*SMALL_BATCHES, settings.parity_max_batch}))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]
