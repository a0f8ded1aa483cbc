"""What is shown of engines before anybody gets them: that they are right, and whether they are fast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdcompress.artifact.read import Artifact
from sdcompress.modalities._geometry import normalise
from sdcompress.progress import Progress
from sdcompress.runtime.engine import Engine
from sdcompress.tensorrt.building.parity import run_parity, widens
from sdcompress.tensorrt.building.precision_comparison import Sibling, race, tuned_batches
from sdcompress.tensorrt.building.settings import BuildSettings
from sdcompress.tensorrt.building.validation import Reference, validate

__all__ = ["prove"]


def prove(
    engine: Engine,
    artifact: Artifact,
    settings: BuildSettings,
    *,
    reference: Reference | None,
    siblings: Sequence[tuple[Sibling, Engine]],
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Hold engines against the checkpoint on the golden images, then against their graphs on others; then race them.

    Args:
        engine: that runs them.
        artifact: that they were made of.
        settings: of the build.
        reference: the graphs, and validation images; None: they could not be had.
        siblings: to be timed beside, at the batches that the profiles are tuned for.
        progress: told (images run, all images), then (rounds done, all rounds).

    Returns:
        The fields ``parity``, ``validation`` and, where there are any, ``siblings`` of ``Engines``.

    Raises:
        ParityError: if they do not compute what the checkpoint computes.
        VerificationError: if they lose more accuracy than they may.
    """
    manifest, tf32 = artifact.manifest, settings.tf32
    records = run_parity(artifact, engine, profiles=settings.profiles, tf32=tf32)
    validation = None
    if reference is not None:
        validation = validate(
            reference, engine, manifest,
            max_drop=settings.max_drop, tf32=widens(manifest, tf32=tf32), progress=progress,
        )  # fmt: skip
    if not siblings:
        return {"parity": records, "validation": validation}
    inputs = normalise(artifact.golden().images, manifest.input.preprocess)
    times = race(engine, siblings, inputs, tuned_batches(settings), progress=progress)
    return {"parity": records, "validation": validation, "siblings": times}
