"""calibrate: a cascade gets its policy; plan: how many samples a certificate takes."""

from __future__ import annotations

import warnings
from pathlib import Path

from sdcompress.artifact.read import Artifact
from sdcompress.calibration.calibrate import EXTERNAL, merge_settings
from sdcompress.calibration.calibrate import calibrate as run_calibrate
from sdcompress.calibration.sample_size import plan as run_plan
from sdcompress.data.samples import Samples
from sdcompress.data.unlabelled import UnlabelledFolder
from sdcompress.errors import SetupError, UsageError
from sdcompress.evaluation.trained_model import TrainedModel, open_trained_model
from sdcompress.options import Options
from sdcompress.schema.manifest import Manifest
from sdcompress.schema.recipe import Calibrate
from sdcompress.schema.report import Plan
from sdcompress.verbs._types import Folder, Overrides, Source

__all__ = ["calibrate", "plan"]


def calibrate(
    source: Source,
    out: Folder,
    settings: Calibrate | Overrides | None = None,
    options: Options | None = None,
    *,
    images: Folder | None = None,
    reference: Artifact | Folder | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Choose a cascade's thresholds on the validation split; writes a new artifact with the policy.

    With a confidence the thresholds come with a certificate, or never fire where none is found: docs/certificates.md.

    Args:
        source: a cascade.
        out: folder of the calibrated artifact.
        settings: the policy, what may be lost, with what confidence.
        options: the threads (default: one) at which the segments are timed; the backend and the device that will run
            the policy, whose outputs choose the thresholds. Progress in images.
        images: without labels, for ``unlabelled``: a folder of your own, instead of the validation split.
        reference: an artifact, for example the one this was quantised from: the drop is against its last exit.
        overwrite: replace an artifact that is there.

    Raises:
        ArtifactError, DataError: if the artifact or the data is not intact.
        UsageError: if a setting is out of range, or there is nothing to calibrate.
    """
    options = options or Options()
    model = open_trained_model(source, options)
    section = merge_settings(model.recipe.calibrate, settings)
    samples, split = _calibration_samples(model, section, images)
    return run_calibrate(
        model.artifact(),
        Path(out),
        section,
        options,
        samples=samples,
        split=split,
        reference=reference,
        overwrite=overwrite,
        progress=options.progress,
    )


def plan(
    source: Source,
    settings: Calibrate | Overrides | None = None,
    options: Options | None = None,
    *,
    images: Folder | None = None,
) -> Plan:
    """Say how many calibration samples a certificate needs; nothing is written, and nothing that certifies is seen.

    Args:
        source: a cascade.
        settings: of the calibration that is planned.
        options: as ``calibrate`` takes them.
        images: a folder of images of your own.

    Raises:
        ArtifactError, DataError: if the artifact or the data is not intact.
        UsageError: if there is no confidence, or nothing to calibrate.
    """
    options = options or Options()
    model = open_trained_model(source, options)
    section = merge_settings(model.recipe.calibrate, settings)
    samples, _ = _calibration_samples(model, section, images)
    return run_plan(model.artifact(), section, options, samples=samples, progress=options.progress)


def _calibration_samples(model: TrainedModel, settings: Calibrate, images: Folder | None) -> tuple[Samples, str]:
    """The validation split, or a user's own images, compared with the training images where these can be had."""
    if images is None:
        return model.dataset().split("validation"), "validation"
    if not settings.unlabelled:
        raise UsageError(
            "A folder of images is given, which has no labels, for a drop that is counted with labels.",
            allowed="--images with --unlabelled: disagreement with the last exit, which the drop cannot exceed",
            next_step="add --unlabelled, or leave --images out to use the data set's validation split",
        )
    progress = model.options.progress
    users = UnlabelledFolder(Path(images), model.artifact().modality, progress)
    try:
        training = model.dataset().train
    except (UsageError, SetupError) as error:
        if model.options.data_dir is not None:
            raise  # it was said to be there
        warnings.warn(f"The images are not compared with the training images: {error.problem}", stacklevel=3)
        return users, EXTERNAL
    users.check_apart(training, progress)
    return users, EXTERNAL
