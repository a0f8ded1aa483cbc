"""calibrate and plan as Python calls: an artifact, and the data that belongs to it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from sdcompress import recipes
from sdcompress.artifact.read import open_artifact
from sdcompress.calibration.calibrate import EXTERNAL
from sdcompress.calibration.calibrate import calibrate as run_calibrate
from sdcompress.calibration.sample_size import plan as run_plan
from sdcompress.data.samples import Samples
from sdcompress.data.unlabelled import UnlabelledImages
from sdcompress.errors import SetupError, UsageError
from sdcompress.evaluation.trained_model import TrainedModel, open_trained_model
from sdcompress.schema.manifest import Manifest
from sdcompress.schema.recipe import Calibrate, Recipe
from sdcompress.schema.report import Plan

__all__ = ["calibrate", "plan"]

Folder = Path | str
Progress = Callable[[int, int], None]


def calibrate(
    artifact: Folder,
    out: Folder,
    *,
    policy: str | None = None,
    max_drop: float | None = None,
    confidence: float | None = None,
    ladder: Sequence[float] | None = None,
    unlabelled: bool | None = None,
    images: Folder | None = None,
    per: Literal["exit", "stratum"] | None = None,
    in_expectation: bool | None = None,
    budget_ms: float | None = None,
    temperature: bool | None = None,
    reference: Folder | None = None,
    data_dir: Folder | None = None,
    threads: int = 1,
    backend: str = "onnxruntime",
    device: str = "cpu",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Choose a cascade's thresholds on the validation split; writes a new artifact with the policy.

    With a confidence the thresholds come with a certificate, or never fire where none is found: docs/certificates.md.

    Args:
        artifact: a cascade.
        out: folder of the calibrated artifact.
        policy: of 'sdcompress list policies'; default: the recipe's.
        max_drop: how much of the metric may be lost against the last exit, 0.01 = one point; default: the recipe's.
        confidence: that no more is lost on new samples, 0.95 = in 19 of 20 calibrations; default: the recipe's.
        ladder: further drops to certify on the same path; the confidence is for all of them together.
        unlabelled: certify disagreement with the last exit, without labels.
        images: with ``unlabelled``: a folder of images of your own, instead of the validation split.
        per: certify in every group: "stratum" (a class), or "exit" (what has left by it); default: the recipe's.
        in_expectation: instead of a confidence: keep the drop in the mean over calibrations; certifies nothing.
        budget_ms: the safest certified thresholds with at most this mean time; default: the fastest.
        temperature: fit a temperature per exit; default: the recipe's.
        reference: an artifact, for example the one this was quantised from: the drop is against its last exit.
        data_dir: where the data lies, if elsewhere than in the recipe.
        threads: at which the segments are timed.
        backend: that will run the policy: its outputs choose the thresholds, and the record says so.
        device: likewise.
        overwrite: replace an artifact that is there.
        progress: called with (images done, all images).

    Raises:
        ArtifactError, DataError: if the artifact or the data is not intact.
        UsageError: if ``max_drop`` is not within 0 and 1, or there is nothing to calibrate.
    """
    trained = open_trained_model(artifact)
    settings = _calibration(
        trained.recipe,
        policy=policy,
        max_drop=max_drop,
        confidence=confidence,
        ladder=None if ladder is None else list(ladder),
        unlabelled=unlabelled,
        per=per,
        in_expectation=in_expectation,
        budget_ms=budget_ms,
        temperature=temperature,
    )
    samples, split = _samples(trained, settings, images, data_dir, progress)
    return run_calibrate(
        Path(artifact),
        Path(out),
        samples=samples,
        settings=settings,
        split=split,
        reference=None if reference is None else Path(reference),
        threads=threads,
        backend=backend,
        device=device,
        overwrite=overwrite,
        progress=progress,
    )


def plan(
    artifact: Folder,
    *,
    policy: str | None = None,
    max_drop: float | None = None,
    confidence: float | None = None,
    ladder: Sequence[float] | None = None,
    unlabelled: bool | None = None,
    images: Folder | None = None,
    per: Literal["exit", "stratum"] | None = None,
    data_dir: Folder | None = None,
    threads: int = 1,
    backend: str = "onnxruntime",
    device: str = "cpu",
    progress: Progress | None = None,
) -> Plan:
    """Say how many calibration samples a certificate needs; nothing is written, and nothing that certifies is seen.

    Args:
        artifact: a cascade.
        policy: of 'sdcompress list policies'; default: the recipe's.
        max_drop: the target drop; this and the other arguments are those of ``calibrate``.
        confidence: of the certificate.
        ladder: further drops.
        unlabelled: for disagreement with the last exit.
        images: a folder of images of your own.
        per: for every group.
        data_dir: where the data lies, if elsewhere than in the recipe.
        threads: at which the segments are timed.
        backend: that the certificate would be for.
        device: likewise.
        progress: called with (images done, all images).

    Raises:
        ArtifactError, DataError: if the artifact or the data is not intact.
        UsageError: if there is no confidence, or nothing to calibrate.
    """
    trained = open_trained_model(artifact)
    settings = _calibration(
        trained.recipe,
        policy=policy,
        max_drop=max_drop,
        confidence=confidence,
        ladder=None if ladder is None else list(ladder),
        unlabelled=unlabelled,
        per=per,
    )
    samples, _ = _samples(trained, settings, images, data_dir, progress)
    return run_plan(
        Path(artifact),
        samples=samples,
        settings=settings,
        threads=threads,
        backend=backend,
        device=device,
        progress=progress,
    )


def _calibration(recipe: Recipe, **given: Any) -> Calibrate:
    """The recipe's settings with those that were given instead; what cannot go with these is given up."""
    if given.get("in_expectation"):
        instead: dict[str, Any] = {"confidence": None, "ladder": (), "per": None, "budget_ms": None}
    else:
        instead = {"in_expectation": False} if given.get("confidence") is not None else {}
    if given.get("unlabelled") and given.get("per") is None and recipe.calibrate.per == "stratum":
        instead["per"] = None
    given = {key: value for key, value in given.items() if value is not None}
    base = recipe.model_copy(
        update={"calibrate": recipe.calibrate.model_copy(update={k: v for k, v in instead.items() if k not in given})}
    )
    return recipes.read(base, [f"calibrate.{key}={json.dumps(value)}" for key, value in given.items()]).calibrate


def _samples(
    trained: TrainedModel,
    settings: Calibrate,
    images: Folder | None,
    data_dir: Folder | None,
    progress: Progress | None,
) -> tuple[Samples, str]:
    """The validation split, or a user's own images, compared with the training images where these can be had."""
    if images is None:
        return trained.dataset(data_dir).split("validation"), "validation"
    if not settings.unlabelled:
        raise UsageError(
            "A folder of images is given, which has no labels, for a drop that is counted with labels.",
            allowed="--images with --unlabelled: disagreement with the last exit, which the drop cannot exceed",
            next_step="add --unlabelled, or leave --images out to use the data set's validation split",
        )
    manifest = open_artifact(trained.path).manifest
    channels, height, width = (int(size) for size in manifest.input.shape[1:])
    external = UnlabelledImages(Path(images), manifest.input.preprocess, (height, width, channels), progress)
    try:
        training = trained.dataset(data_dir).train
    except (UsageError, SetupError) as error:
        if data_dir is not None:
            raise  # it was said to be there
        warnings.warn(f"The images are not compared with the training images: {error.found}", stacklevel=2)
        return external, EXTERNAL
    external.check_apart(training, progress)
    return external, EXTERNAL
