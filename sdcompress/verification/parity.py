"""The parity gate: an export is kept only if it computes what the checkpoint computes, on real images.

For each exit, over 256 images or more (or all held-out ones), in batches of 1, 2, 7 and the largest:

- every logit is finite and |logit - reference| <= atol + rtol * max|reference|;
- no image changes its class, unless the reference itself is undecided (its two best logits closer than twice that);
- an image's logits do not depend on which images are beside it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdcompress.schema.manifest import ParityRecord
from sdcompress.schema.recipe import Export
from sdcompress.verification.sessions import FAILURES

__all__ = ["Finding", "allowance", "compare", "describe", "records", "weaker", "write"]

SMALL_BATCHES = (1, 2, 7)
SMALL_SAMPLES = 28

Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Finding:
    """One exit under the gate.

    Attributes:
        exit: its name.
        samples: images compared.
        batches: sizes they were run in.
        max_abs: largest absolute difference of a logit; None where one is not finite or nothing could be run.
        allowed: how large it may be.
        flips: images whose class changed although the reference was decided.
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


def compare(
    make: Callable[[], Run], images: np.ndarray, reference: np.ndarray, *, exits: Sequence[str], settings: Export
) -> tuple[Finding, ...]:
    """Hold an exported network against the checkpoint.

    Args:
        make: opens the exported network: images [B, H, W, C] -> logits [E, B, K].
        images: uint8 [N, H, W, C], real ones.
        reference: float32 [E, N, K], the checkpoint's logits.
        exits: E names.
        settings: tolerances and the largest batch.
    """
    try:
        run = make()
        full = _in_batches(run, images, settings.max_batch)
        others = list(_beside_others(run, images, settings.max_batch))
    except FAILURES as error:
        why = f"it cannot be run in every batch size: {_first_line(error)}"
        return tuple(Finding(name, 0, _batches(settings), None, settings.atol, 0, (), why) for name in exits)
    findings = []
    for index, name in enumerate(exits):
        alone = [(chosen, logits[index]) for chosen, logits in others]
        findings.append(_finding(name, full[index], alone, reference[index], settings))
    return tuple(findings)


def allowance(reference: np.ndarray, settings: Export) -> float:
    """How far a logit may be off: atol + rtol * the largest absolute logit of the exit."""
    return settings.atol + settings.rtol * float(np.abs(reference).max())


def weaker(samples: int, asked: int) -> str:
    """What a gate of fewer images than were asked for proves, as a sentence; empty where there are enough.

    No flip among n images bounds the share of new images that flip by 1 - 0.05^(1/n), at 95 % confidence.
    """
    if samples >= asked:
        return ""
    bounds = [f"{100 * (1 - 0.05 ** (1 / count)):.1f} %" for count in (samples, asked)]
    return (
        f"Only {samples} held-out images prove the export, not {asked}. That is weaker: at 95 % confidence up to "
        f"{bounds[0]} of new images may get another class than from the checkpoint; {asked} images bound it by "
        f"{bounds[1]}."
    )


def records(findings: Sequence[Finding]) -> tuple[ParityRecord, ...]:
    """What the manifest says of exits that passed."""
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


def describe(findings: Sequence[Finding]) -> str:
    """The failed exits and their figures, as one sentence; empty if all passed."""
    return "; ".join(f"{finding.exit}: {finding.problem}" for finding in findings if finding.problem)


def write(findings: Sequence[Any], path: Path) -> None:
    """Write the findings, dataclasses of plain values, as JSON."""
    text = json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _in_batches(run: Run, images: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([run(images[at : at + size]) for at in range(0, len(images), size)], axis=1)


def _beside_others(run: Run, images: np.ndarray, largest: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions and logits of images run alone, in small batches, and in a full batch with strangers."""
    for size in SMALL_BATCHES:
        chosen = np.resize(np.arange(len(images)), SMALL_SAMPLES)  # where there are fewer, they come again
        yield chosen, _in_batches(run, images[chosen], size)
    strangers = np.resize(np.random.default_rng(0).permutation(len(images)), largest)
    yield strangers, run(images[strangers])


def _finding(
    name: str,
    logits: np.ndarray,
    alone: Sequence[tuple[np.ndarray, np.ndarray]],
    reference: np.ndarray,
    settings: Export,
) -> Finding:
    batches = _batches(settings)
    if not np.isfinite(reference).all():
        why = "the checkpoint's own logits are not finite"
        return Finding(name, len(reference), batches, None, settings.atol, 0, (), why)
    allowed = allowance(reference, settings)
    errors = np.abs(logits - reference).max(1)
    flips = int(((logits.argmax(1) != reference.argmax(1)) & (_margin(reference) > 2 * allowed)).sum())
    spread = float(np.max([np.abs(other - logits[chosen]).max() for chosen, other in alone]))
    worst = float(np.max([errors.max(), *(np.abs(other - reference[chosen]).max() for chosen, other in alone)]))
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


def _margin(logits: np.ndarray) -> np.ndarray:
    """By how much the best logit leads, [N]."""
    if logits.shape[1] == 1:
        return np.zeros(len(logits), np.float32)
    best = np.partition(logits, -2, axis=1)
    return np.asarray(best[:, -1] - best[:, -2])


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]
