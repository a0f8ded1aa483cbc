"""Compare an export's logits with the checkpoint's, on real images.

For each exit, over 256 images or more (or all held-out ones), in batches of 1, 2, 7 and the largest:

- every logit is finite and |logit - reference| <= atol + rtol * max|reference|;
- no image changes its class, unless the reference's two largest logits are closer than twice that tolerance;
- an image's logits do not depend on the other images of its batch.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdcompress.runtime.backends.onnxruntime import ORT_ERRORS
from sdcompress.schema.manifest import ParityRecord
from sdcompress.schema.recipe import Export
from sdcompress.tasks import _probabilities as metrics

__all__ = [
    "Finding",
    "allowance",
    "compare_logits",
    "describe_failures",
    "records",
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
        samples: images compared.
        batches: sizes they were run in.
        max_abs: largest absolute difference of a logit; None where one is not finite or nothing could be run.
        allowed: tolerance of ``max_abs``.
        flips: images whose class changed although the reference's margin is larger than twice the tolerance.
        worst: positions of up to 8 images with the largest differences, largest first.
        problem: what is wrong, as a sentence; empty if the exit passed.
    """

    exit: str
    samples: int
    batches: tuple[int, ...]
    max_abs: float | None
    allowed: float
    flips: int
    worst: tuple[int, ...]
    problem: str


def compare_logits(
    load: Callable[[], Run], images: np.ndarray, reference: np.ndarray, *, exits: Sequence[str], settings: Export
) -> tuple[Finding, ...]:
    """Compare an exported network with the checkpoint, exit by exit.

    Args:
        load: opens the exported network: images [B, H, W, C] -> logits [E, B, K].
        images: uint8 [N, H, W, C], real ones.
        reference: float32 [E, N, K], the checkpoint's logits.
        exits: E names.
        settings: tolerances and the largest batch.
    """
    try:
        run = load()
        logits = _in_batches(run, images, settings.max_batch)
        other_batches = list(_in_other_batches(run, images, settings.max_batch))
    except ORT_ERRORS as error:
        problem = f"it cannot be run in every batch size: {_first_line(error)}"
        return tuple(Finding(name, 0, _batches(settings), None, settings.atol, 0, (), problem) for name in exits)
    findings = []
    for index, name in enumerate(exits):
        same_exit = [(chosen, logits[index]) for chosen, logits in other_batches]
        findings.append(_finding(name, logits[index], same_exit, reference[index], settings))
    return tuple(findings)


def allowance(reference: np.ndarray, settings: Export) -> float:
    """The tolerance of a logit: atol + rtol * the largest absolute logit of the exit."""
    return settings.atol + settings.rtol * float(np.abs(reference).max())


def weaker(samples: int, requested: int) -> str:
    """A warning for a gate with fewer images than requested; empty where there are enough.

    No flip among n images bounds the share of new images that flip by 1 - 0.05^(1/n), at 95 % confidence.
    """
    if samples >= requested:
        return ""
    bounds = [f"{100 * (1 - 0.05 ** (1 / count)):.1f} %" for count in (samples, requested)]
    return (
        f"Only {samples} held-out images prove the export, not {requested}. That is weaker: at 95 % confidence up to "
        f"{bounds[0]} of new images may get another class than from the checkpoint; {requested} images bound it by "
        f"{bounds[1]}."
    )


def records(findings: Sequence[Finding]) -> tuple[ParityRecord, ...]:
    """The manifest's records of exits that passed."""
    return tuple(
        ParityRecord(
            exit=finding.exit,
            samples=finding.samples,
            batches=finding.batches,
            max_abs=finding.max_abs or 0.0,
            allowed=finding.allowed,
            flips=finding.flips,
        )
        for finding in findings
    )


def describe_failures(findings: Sequence[Finding]) -> str:
    """The problems of all failed exits as one text; empty if all passed."""
    return "; ".join(f"{finding.exit}: {finding.problem}" for finding in findings if finding.problem)


def write_findings(findings: Sequence[Any], path: Path) -> None:
    """Write the findings, dataclasses of plain values, as JSON."""
    text = json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _in_batches(run: Run, images: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([run(images[at : at + size]) for at in range(0, len(images), size)], axis=1)


def _in_other_batches(run: Run, images: np.ndarray, largest: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions and logits of images run singly, in small batches, and in a full batch of shuffled images."""
    for size in SMALL_BATCHES:
        chosen = np.resize(np.arange(len(images)), SMALL_SAMPLES)  # repeats where there are fewer
        yield chosen, _in_batches(run, images[chosen], size)
    shuffled = np.resize(np.random.default_rng(0).permutation(len(images)), largest)
    yield shuffled, run(images[shuffled])


def _finding(
    name: str,
    logits: np.ndarray,
    other_batches: Sequence[tuple[np.ndarray, np.ndarray]],
    reference: np.ndarray,
    settings: Export,
) -> Finding:
    batches = _batches(settings)
    if not np.isfinite(reference).all():
        problem = "the checkpoint's own logits are not finite"
        return Finding(name, len(reference), batches, None, settings.atol, 0, (), problem)
    allowed = allowance(reference, settings)
    errors = np.abs(logits - reference).max(1)
    flips = metrics.flips([logits], reference, margin=2 * allowed)
    spread = float(np.max([np.abs(again - logits[chosen]).max() for chosen, again in other_batches]))
    worst = float(np.max([errors.max(), *(np.abs(again - reference[chosen]).max() for chosen, again in other_batches)]))
    finite = bool(np.isfinite(worst))
    problem = ""
    if not finite:
        problem = "logits are not finite"
    elif spread > allowed:
        problem = f"an image's logits move by {spread:.2g} with the images beside it (allowed {allowed:.2g})"
    elif worst > allowed or flips:
        problem = f"logits are off by {worst:.2g} (allowed {allowed:.2g}), {flips} of {len(logits)} classes change"
    order = tuple(int(index) for index in np.argsort(-np.nan_to_num(errors, nan=np.inf), kind="stable")[:8])
    return Finding(name, len(logits), batches, worst if finite else None, allowed, flips, order, problem)


def _batches(settings: Export) -> tuple[int, ...]:
    return tuple(sorted({*SMALL_BATCHES, settings.max_batch}))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]
