"""calibrate: choose the exit policy of a cascade; plan: compute how many samples a certificate needs."""

from __future__ import annotations

import warnings
from pathlib import Path

from sdcompress.artifact.read import Artifact
from sdcompress.calibration.calibrate import EXTERNAL, check_is_cascade, check_policy, merge_settings
from sdcompress.calibration.calibrate import calibrate as run_calibrate
from sdcompress.calibration.plan_sample_size import plan as run_plan
from sdcompress.calibration.reference_model import open_comparable
from sdcompress.data.samples import Samples
from sdcompress.data.unlabelled import UnlabelledFolder
from sdcompress.errors import SetupError, UsageError
from sdcompress.evaluation.trained_model import TrainedModel, open_trained_model
from sdcompress.options import Options
from sdcompress.schema.manifest import Manifest
from sdcompress.schema.recipe import Calibrate
from sdcompress.schema.report import SampleSizePlan
from sdcompress.verbs._types import Folder, Overrides, Source

__all__ = ["calibrate", "plan"]


def calibrate(
    source: Source,
    out: Folder,
    settings: Calibrate | Overrides | None = None,
    options: Options | None = None,
    *,
    samples: Folder | None = None,
    reference: Artifact | Folder | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Choose the thresholds of a cascade on the validation split, and write a new artifact with the policy.

    With a confidence the thresholds have a certificate; if there is none, early exit is disabled: docs/certificates.md.

    Args:
        source: a cascade.
        out: folder of the calibrated artifact.
        settings: the policy, the largest drop, the confidence.
        options: the threads (default: one) with which segments are timed; the backend and the device that will run
            the policy, whose outputs choose the thresholds. Progress in samples.
        samples: for ``unlabelled``: a folder of your own samples without labels, instead of the validation split.
        reference: an artifact, for example the one before quantising: the drop is counted from its last exit.
        overwrite: replace an existing artifact.

    Raises:
        ArtifactError, DataError: if the artifact or the data is not intact.
        UsageError: if a setting is out of range, or there is nothing to calibrate.
    """
    options = options or Options()
    model = open_trained_model(source, options)
    section = merge_settings(model.recipe.calibrate, settings)
    artifact = _checked(model, section)
    if reference is not None:
        reference = open_comparable(reference, artifact.manifest)
    chosen, split = _calibration_samples(model, section, samples)
    return run_calibrate(
        artifact,
        Path(out),
        section,
        options,
        samples=chosen,
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
    samples: Folder | None = None,
) -> SampleSizePlan:
    """Compute how many calibration samples a certificate needs; nothing is written, no certification sample is used.

    Args:
        source: a cascade.
        settings: of the planned calibration.
        options: as ``calibrate`` takes them.
        samples: a folder of samples of your own.

    Raises:
        ArtifactError, DataError: if the artifact or the data is not intact.
        UsageError: if there is no confidence, or nothing to calibrate.
    """
    options = options or Options()
    model = open_trained_model(source, options)
    section = merge_settings(model.recipe.calibrate, settings)
    artifact = _checked(model, section)
    chosen, _ = _calibration_samples(model, section, samples)
    return run_plan(artifact, section, options, samples=chosen, progress=options.progress)


def _checked(model: TrainedModel, settings: Calibrate) -> Artifact:
    """Return the artifact, after what can be refused before the data is read, which may take minutes."""
    artifact = model.artifact()
    check_is_cascade(artifact)
    check_policy(settings, len(artifact.manifest.exits), artifact.task)
    return artifact


def _calibration_samples(model: TrainedModel, settings: Calibrate, folder: Folder | None) -> tuple[Samples, str]:
    """Return the validation split, or a user's samples, compared with the training samples if these are available."""
    if folder is None:
        return model.dataset().split("validation"), "validation"
    if not settings.unlabelled:
        raise UsageError(
            "A folder of samples without labels is given, for a drop that is counted with labels.",
            allowed="--samples with --unlabelled: disagreement with the last exit, which the drop cannot exceed",
            next_step="add --unlabelled, or leave --samples out to use the data set's validation split",
        )
    progress = model.options.progress
    users = UnlabelledFolder(Path(folder), model.artifact().modality, progress)
    try:
        training = model.dataset().train
    except (UsageError, SetupError) as error:
        if model.options.data_dir is not None:
            raise  # the user named this folder
        warnings.warn(f"The samples are not compared with the training samples: {error.problem}", stacklevel=3)
        return users, EXTERNAL
    users.check_apart(training, progress)
    return users, EXTERNAL
