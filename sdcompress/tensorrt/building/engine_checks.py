"""Check new engines before they are published: parity, accuracy, and speed beside other precisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdcompress.artifact.read import Artifact
from sdcompress.progress import Progress
from sdcompress.runtime.engine import Engine
from sdcompress.tensorrt.building.parity import run_parity, tf32_applies
from sdcompress.tensorrt.building.precision_comparison import Sibling, compare_speed, tuned_batches
from sdcompress.tensorrt.building.settings import BuildSettings
from sdcompress.tensorrt.building.validation import Reference, validate

__all__ = ["check_engines"]


def check_engines(
    engine: Engine,
    artifact: Artifact,
    settings: BuildSettings,
    *,
    reference: Reference | None,
    siblings: Sequence[tuple[Sibling, Engine]],
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compare engines with the checkpoint on golden images, with their graphs on validation samples, and in speed.

    Args:
        engine: that runs them.
        artifact: that they were built from.
        settings: of the build.
        reference: the graphs and validation samples; None: not available.
        siblings: artifacts to compare the speed with, at the batches that the profiles are tuned for.
        progress: called with (images run, all images), then (rounds done, all rounds).

    Returns:
        The fields ``parity``, ``validation`` and, where there are any, ``speed_comparisons`` of ``Engines``.

    Raises:
        ParityError: if they do not compute what the checkpoint computes.
        VerificationError: if they lose more accuracy than ``settings.max_drop``.
    """
    manifest, tf32 = artifact.manifest, settings.tf32
    records = run_parity(artifact, engine, profiles=settings.profiles, tf32=tf32)
    validation = None
    if reference is not None:
        validation = validate(
            reference, engine, manifest,
            max_drop=settings.max_drop, tf32=tf32_applies(manifest, tf32=tf32), progress=progress,
        )  # fmt: skip
    if not siblings:
        return {"parity": records, "validation": validation}
    inputs = artifact.modality.collate(artifact.golden().examples)
    times = compare_speed(engine, siblings, inputs, tuned_batches(settings), progress=progress)
    return {"parity": records, "validation": validation, "speed_comparisons": times}
