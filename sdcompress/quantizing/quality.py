"""What a precision costs: on the validation split the answers of every exit, on the golden images the logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.golden import Golden
from sdcompress.data.preprocess import normalise
from sdcompress.data.samples import Samples
from sdcompress.errors import VerificationError
from sdcompress.evaluation.metrics import calibration_error, softmax
from sdcompress.exporting.chain import Chain
from sdcompress.schema.manifest import Manifest, ParityRecord
from sdcompress.schema.quantized import ExitChange

__all__ = ["Loss", "Quality", "compare", "golden_records"]

_BATCH = 256
# how much further than here the logits may be from the checkpoint's on a machine that computes with other kernels
_MARGIN = 2


@dataclass(frozen=True)
class Quality:
    """One exit in both precisions on N images.

    Attributes:
        change: what is told of it.
        ece: in the new precision.
        lost: answers that are right before minus those that are right after.
        finite: whether all logits are finite.
        worst: positions of up to 8 images with the largest differences, largest first.
    """

    change: ExitChange
    ece: float
    lost: int
    finite: bool
    worst: tuple[int, ...]


@dataclass(frozen=True)
class Loss:
    """One exit under the gate of a precision, as ``parity.json`` has it where one fails.

    Attributes:
        exit: its name.
        samples: images of the validation split.
        accuracy_before: share of right answers in float32.
        accuracy_after: in the new precision.
        max_drop: how much smaller that may be.
        changed: images whose answer is another one.
        max_abs: largest absolute difference of a logit; None where one is not finite.
        worst: positions of up to 8 images with the largest differences, largest first.
        problem: what is wrong, as a sentence; empty if the exit passed.
    """

    exit: str
    samples: int
    accuracy_before: float
    accuracy_after: float
    max_drop: float
    changed: int
    max_abs: float | None
    worst: tuple[int, ...]
    problem: str


def compare(
    manifest: Manifest,
    before: Sequence[bytes],
    after: Sequence[bytes],
    samples: Samples,
    *,
    threads: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[Quality, ...]:
    """Run both on all samples, batch by batch; no logits are held for more than one.

    Args:
        manifest: of the artifact in float32.
        before: its graphs.
        after: the graphs in the new precision.
        samples: the validation split.
        threads: of ONNX Runtime.
        progress: called with (images run, all images).
    """
    chains = [_chain(manifest, graphs, threads=threads) for graphs in (before, after)]
    parts = []
    for start in range(0, len(samples), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(samples)))
        inputs = normalise(samples.images(rows), manifest.input.preprocess)
        ours, theirs = (chain(inputs) for chain in chains)
        parts.append(_Batch.of(ours, theirs, samples.labels[rows]))
        if progress is not None:
            progress(int(rows[-1]) + 1, len(samples))
    found = _Batch(*(np.concatenate(values, axis=1) for values in zip(*(vars(part).values() for part in parts))))  # noqa: B905 - all alike
    return tuple(_quality(exit_.name, found, row) for row, exit_ in enumerate(manifest.exits))


def golden_records(
    manifest: Manifest, graphs: Sequence[bytes], golden: Golden, *, threads: int
) -> tuple[ParityRecord, ...]:
    """How far every exit is from the checkpoint on the golden images, and how far it may be elsewhere.

    Run as ONNX Runtime optimises it, with integer kernels, and as it is written, with float32 between rounding and
    rounding: two ways of computing the same graph that may round a number to neighbouring codes. ``allowed`` is twice
    the larger distance, and the tolerance of the export on top.

    Raises:
        VerificationError: if a logit is not finite.
    """
    inputs = normalise(golden.images, manifest.input.preprocess)
    ways = [_chain(manifest, graphs, threads=threads, optimise=optimise)(inputs) for optimise in (True, False)]
    if not np.isfinite(ways).all():
        raise VerificationError(
            "A logit of a golden image is not finite in this precision.",
            allowed="finite logits",
            next_step="try another precision: sdcompress list precisions",
        )
    records = []
    for row, (exit_, old) in enumerate(zip(manifest.exits, manifest.parity, strict=True)):
        reference = golden.logits[row]
        distance = max(float(np.abs(way[row] - reference).max()) for way in ways)
        flips = int((ways[0][row].argmax(1) != reference.argmax(1)).sum())
        records.append(
            ParityRecord(
                exit=exit_.name,
                samples=len(reference),
                batches=(len(reference),),
                max_abs=distance,
                allowed=_MARGIN * distance + old.allowed,
                flips=flips,
            )
        )
    return tuple(records)


def _chain(manifest: Manifest, graphs: Sequence[bytes], *, threads: int, optimise: bool = True) -> Chain:
    logits = [exit_.logits for exit_ in manifest.exits]
    return Chain(graphs, network_input=manifest.input.name, logits=logits, threads=threads, optimise=optimise)


@dataclass(frozen=True)
class _Batch:
    """Of E exits and N images, each [E, N]."""

    right_before: npt.NDArray[np.bool_]
    right_after: npt.NDArray[np.bool_]
    changed: npt.NDArray[np.bool_]
    difference: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float64]

    @classmethod
    def of(cls, before: np.ndarray, after: np.ndarray, labels: npt.NDArray[np.int64]) -> _Batch:
        answers = [logits.argmax(axis=2) for logits in (before, after)]
        difference = np.abs(after - before).max(axis=2)
        confidence = softmax(np.nan_to_num(after)).max(axis=2)
        return cls(answers[0] == labels, answers[1] == labels, answers[0] != answers[1], difference, confidence)


def _quality(name: str, found: _Batch, row: int) -> Quality:
    before, after = found.right_before[row], found.right_after[row]
    difference = found.difference[row]
    finite = bool(np.isfinite(difference).all())
    known = np.nan_to_num(difference, nan=np.inf)
    change = ExitChange(
        name=name,
        accuracy_before=float(before.mean()),
        accuracy_after=float(after.mean()),
        changed=int(found.changed[row].sum()),
        max_abs=float(min(known.max(), np.finfo(np.float32).max)),
    )
    return Quality(
        change,
        calibration_error(found.confidence[row], after),
        int(before.sum()) - int(after.sum()),
        finite,
        tuple(int(index) for index in np.argsort(-known, kind="stable")[:8]),
    )
