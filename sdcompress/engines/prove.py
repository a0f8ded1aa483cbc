"""What is shown of engines before anybody gets them: that they are right, and whether they are fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sdcompress.artifact.read import Artifact
from sdcompress.data.preprocess import normalise
from sdcompress.data.samples import Samples
from sdcompress.engines.parity import run_parity, widens
from sdcompress.engines.settings import BuildSettings
from sdcompress.engines.siblings import Sibling, race
from sdcompress.engines.validation import validate
from sdcompress.runtime.engine import Engine
from sdcompress.runtime.open import open_engine

__all__ = ["prove"]


def prove(
    engine: Engine,
    artifact: Artifact,
    settings: BuildSettings,
    *,
    samples: Samples | None,
    siblings: Sequence[tuple[Sibling, Engine]],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Hold engines against the checkpoint on the golden images, then against their graphs on others; then race them.

    Args:
        engine: that runs them.
        artifact: that they were made of.
        settings: of the build.
        samples: of the validation split; None: there are none.
        siblings: to be timed beside, at the batches that the profiles are tuned for.
        progress: told (images run, all images), then (rounds done, all rounds).

    Returns:
        The fields ``parity``, ``validation`` and ``siblings`` of ``Engines``.

    Raises:
        ParityError: if they do not compute what the checkpoint computes.
        VerificationError: if they lose more accuracy than they may.
    """
    manifest, tf32 = artifact.manifest, settings.tf32
    records = run_parity(artifact, engine, profiles=settings.profiles, tf32=tf32)
    validation = None
    if samples is not None:
        graphs = open_engine(artifact.path, allow_uncertified=True)
        validation = validate(
            graphs, engine, samples, manifest,
            max_drop=settings.max_drop, tf32=widens(manifest, tf32=tf32), progress=progress,
        )  # fmt: skip
    inputs = normalise(artifact.golden().images, manifest.input.preprocess)
    batches = sorted({profile.opt for profile in settings.profiles})
    times = race(engine, siblings, inputs, batches, progress=progress) if siblings else ()
    return {"parity": records, "validation": validation, "siblings": times}
