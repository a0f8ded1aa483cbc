"""Give a cascade its exit policy: temperatures and thresholds, chosen with the runtime that will use them."""

from __future__ import annotations

import datetime as dt
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.card import card
from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.artifact.write import entry, seal, staged
from sdcompress.calibration.stages import stage_ms
from sdcompress.calibration.temperature import fit_temperature
from sdcompress.calibration.thresholds import choose_thresholds, leave
from sdcompress.data.samples import Samples
from sdcompress.errors import DataError, UsageError
from sdcompress.evaluation.evaluate import exit_logits
from sdcompress.runtime.open import open_engine
from sdcompress.runtime.policies import max_probability
from sdcompress.schema import recipe
from sdcompress.schema.manifest import Exit, Manifest, Policy

__all__ = ["LEAST_SAMPLES", "calibrate"]

LEAST_SAMPLES = 50
_BACKEND = "onnxruntime"


def calibrate(
    artifact: Path,
    out: Path,
    *,
    samples: Samples,
    settings: recipe.Calibrate,
    split: str = "validation",
    threads: int = 1,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Write a copy of a cascade that has a policy; an earlier policy is chosen anew.

    The logits come from the very graphs that are copied, run by the same engine, and the cost of each stage is
    measured. Where no threshold helps, the policy's thresholds never fire: everybody reaches the last exit.

    Args:
        artifact: a cascade.
        out: folder of the new artifact.
        samples: N labelled images that training has not seen.
        settings: the accuracy that may be lost, and whether temperatures are fitted.
        split: what the samples are; only kept in the record.
        threads: at which the stages are measured.
        overwrite: replace an artifact that is there.
        progress: called with (images done, all images).

    Raises:
        UsageError: if the artifact is no cascade, or the split is "test".
        DataError: if there are fewer than 50 samples, or a label is none of the classes.
        ArtifactError: if the artifact is not intact; VerificationError: if a logit is not finite.
        OutputExistsError, StorageError: if ``out`` cannot be written.
    """
    opened = open_artifact(artifact)
    _check(opened, samples, split)
    with staged(out, overwrite=overwrite) as folder:
        exits, policy = _choose(opened, samples, settings, split=split, threads=threads, progress=progress)
        return _write(opened, exits, policy, folder)


def _check(opened: Artifact, samples: Samples, split: str) -> None:
    manifest = opened.manifest
    if manifest.layout != "cascade" or len(manifest.exits) < 2:
        raise UsageError(
            f"'{opened.path}' has the layout '{manifest.layout}' and {len(manifest.exits)} exit(s): leaving early "
            "would save nothing.",
            allowed="the layout 'cascade'",
            next_step="sdcompress export CHECKPOINT --layout cascade, and calibrate that",
        )
    if split == "test":
        raise UsageError(
            "Thresholds may not be chosen on the test split.",
            allowed="validation chooses, test only reports",
            next_step="use the validation split",
        )
    if len(samples) < LEAST_SAMPLES:
        raise DataError(
            f"The {split} split has {len(samples)} samples, too few to choose thresholds with.",
            allowed=f"at least {LEAST_SAMPLES}; for a loss of one point, some thousands",
            next_step="set data.validation higher and train again",
        )


def _choose(
    opened: Artifact,
    samples: Samples,
    settings: recipe.Calibrate,
    *,
    split: str,
    threads: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[tuple[Exit, ...], Policy]:
    engine = open_engine(opened.path, backend=_BACKEND, threads=threads)
    logits, labels = exit_logits(engine, samples, progress=progress), samples.labels
    times = stage_ms(engine, samples)
    temperatures = [fit_temperature(found, labels) if settings.temperature else 1.0 for found in logits]
    exits = tuple(
        exit_.model_copy(update={"temperature": temperature})
        for exit_, temperature in zip(opened.manifest.exits, temperatures, strict=True)
    )
    confidences = np.stack(
        [max_probability(found, exit_.temperature) for found, exit_ in zip(logits[:-1], exits, strict=False)]
    )
    right = logits.argmax(axis=2) == labels
    thresholds = choose_thresholds(confidences, right, times, settings.max_drop)
    return exits, _policy(thresholds, confidences, right, settings=settings, split=split, times=times)


def _policy(
    thresholds: tuple[float, ...],
    confidences: npt.NDArray[np.float32],
    right: npt.NDArray[np.bool_],
    *,
    settings: recipe.Calibrate,
    split: str,
    times: tuple[float, ...],
) -> Policy:
    left = leave(confidences, thresholds)
    return Policy(
        kind=settings.policy,
        thresholds=thresholds,
        max_drop=settings.max_drop,
        split=split,
        samples=len(left),
        accuracy=float(right[left, np.arange(len(left))].mean()),
        reference_accuracy=float(right[-1].mean()),
        shares=tuple(float((left == exit_).mean()) for exit_ in range(len(right))),
        stage_ms=times,
        backend=_BACKEND,
    )


def _write(opened: Artifact, exits: tuple[Exit, ...], policy: Policy, folder: Path) -> Manifest:
    old = opened.manifest
    for file in (*old.segments, old.golden):
        (folder / file.file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(opened.file(file), folder / file.file)
    provenance = old.provenance.model_copy(
        update={
            "parent": old.digest,
            "created": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        }
    )
    text = card(
        layout=old.layout,
        classes=old.classes,
        network_input=old.input,
        segments=old.segments,
        exits=exits,
        parity=old.parity,
        provenance=provenance,
        policy=policy,
    )
    (folder / old.card.file).write_text(text, encoding="utf-8", newline="\n")
    kept = {name: getattr(old, name) for name in Manifest.model_fields if name != "digest"}
    changed = {"exits": exits, "policy": policy, "provenance": provenance, "card": entry(folder, old.card.file)}
    return seal(folder, **{**kept, **changed})
