"""What a precision costs: on the validation split the answers of every exit, on the golden images the logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdcompress.artifact.golden import Golden
from sdcompress.data.samples import Samples
from sdcompress.errors import VerificationError
from sdcompress.evaluation.change import ExitComparison, Quality
from sdcompress.modalities._geometry import normalise
from sdcompress.progress import Progress
from sdcompress.schema.manifest import Manifest, ParityRecord
from sdcompress.verification.sessions import Chain

__all__ = ["Loss", "compare", "golden_records"]

_BATCH = 256
# how much further than here the logits may be from the checkpoint's on a machine that computes with other kernels
_MARGIN = 2


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
    progress: Progress | None,
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
    found = ExitComparison([exit_.name for exit_ in manifest.exits])
    for start in range(0, len(samples), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(samples)))
        inputs = normalise(samples.images(rows), manifest.input.preprocess)
        wide, narrow = (chain(inputs) for chain in chains)
        found.add(wide, narrow, samples.labels[rows])
        if progress is not None:
            progress(int(rows[-1]) + 1, len(samples))
    return found.found()


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
