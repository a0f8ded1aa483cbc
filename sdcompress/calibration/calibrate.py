"""Choose temperatures and exit thresholds for a cascade with its runtime, and write them to a new artifact."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.artifact.write import rewrite, staged
from sdcompress.calibration.exit_choice import faster_form, kept_exits
from sdcompress.calibration.guarantee import certified_policy, policy_in_expectation, split_of
from sdcompress.calibration.policy_fitting import fit_policy
from sdcompress.calibration.reference_model import ReferenceModel, open_reference
from sdcompress.calibration.stage_timing import call_times, decision_ms, stage_ms, stage_times
from sdcompress.calibration.thresholds import NEVER, choose_thresholds
from sdcompress.certification.calibration_split import calibration_count_for
from sdcompress.certification.certify import kind_of_test, policy_metrics, smallest_drop
from sdcompress.certification.groups import check_strata, strata_of, warn_of_strata
from sdcompress.certification.power_analysis import least_samples as least_to_certify
from sdcompress.certification.power_analysis import samples_for_binomial, samples_for_loss
from sdcompress.data.samples import Samples
from sdcompress.errors import DataError, UsageError
from sdcompress.options import DEFAULT_OPTIONS, EngineOptions
from sdcompress.policies import check_task, exit_index_of, policy_class
from sdcompress.progress import Progress
from sdcompress.recipes import override
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.open import open_cascade
from sdcompress.schema import recipe
from sdcompress.schema.manifest import Certificate, Manifest, Policy
from sdcompress.tasks import Task, task_of

__all__ = [
    "EXTERNAL",
    "LEAST_SAMPLES",
    "MORE_HELD_OUT",
    "calibrate",
    "check",
    "check_is_cascade",
    "check_policy",
    "least_samples",
    "merge_settings",
    "uncalibrated",
]

LEAST_SAMPLES = 50
MORE_HELD_OUT = "hold out more (data.validation, or the data's own validation split) and train again"
EXTERNAL = "external"  # the name of the split, where it is samples of the user


def calibrate(
    artifact: Artifact | Path | str,
    out: Path,
    settings: recipe.Calibrate,
    options: EngineOptions = DEFAULT_OPTIONS,
    *,
    samples: Samples,
    split: str = "validation",
    reference: Artifact | Path | str | None = None,
    joint_confidence: float | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Write a copy of a cascade with an exit policy; it replaces an earlier policy.

    The outputs come from the graphs that are copied, and the cost of each stage is measured. Where no threshold saves
    time within the target drop, or where no thresholds can be certified, early exit is disabled: all samples run to the
    last exit.

    Args:
        artifact: a cascade.
        out: folder of the new artifact.
        settings: target drop, confidence, policy and whether temperatures are fitted.
        options: threads (default: one) with which stages are measured, and backend and device that run the samples. The
            policy and its certificate are for this backend and device.
        samples: N samples that training has not seen; with ``settings.unlabelled`` their targets are not used.
        split: name of their split, for the record.
        reference: an artifact from whose last exit losses are counted; None: the last exit of this one.
        joint_confidence: of several certificates together, of which one is chosen by what their tests say: the
            certificate states this one. Its own test keeps that of the settings, which must be larger. None: it is
            alone.
        overwrite: replace an existing artifact.
        progress: called with (samples done, all samples).

    Raises:
        UsageError: if the artifact is no cascade, the split is "test", or no certified thresholds keep the budget.
        DataError: if there are too few samples, or a target does not fit the task.
        ArtifactError: if the artifact is not intact.
        VerificationError: if an output is not finite.
        OutputExistsError, StorageError: if ``out`` cannot be written.
        SetupError: if this machine does not have the backend or the device.
    """
    opened = open_artifact(artifact)
    check(opened, samples, settings, split)
    options = replace(options, threads=options.threads or 1, allow_uncertified=True)
    reference_model = _reference(reference, opened, settings, options.threads or 1)
    with staged(out, overwrite=overwrite) as folder:
        engine, certificate = open_cascade(uncalibrated(opened), options), None
        if settings.in_expectation:
            temperatures, policy = policy_in_expectation(
                opened.manifest, engine, samples, settings, split=split, progress=progress
            )
        elif settings.confidence is None:
            temperatures, policy = _choose(opened, engine, samples, settings, split=split, progress=progress)
        else:
            temperatures, policy, certificate = certified_policy(
                opened.manifest,
                engine,
                samples,
                settings,
                folder,
                split=split,
                reference=reference_model,
                joint_confidence=joint_confidence,
                progress=progress,
            )
        return _write(opened, temperatures, policy, certificate, folder)


def merge_settings(
    settings: recipe.Calibrate, overrides: recipe.Calibrate | Mapping[str, Any] | None
) -> recipe.Calibrate:
    """Return a recipe's settings with overrides; settings that exclude an override are reset.

    Args:
        settings: of the recipe.
        overrides: a whole section, some of its keys, or None.

    Raises:
        RecipeError: if a key is unknown, a value is out of range, or two of the overrides exclude each other.
    """
    if not isinstance(overrides, Mapping):
        return settings if overrides is None else overrides
    reset: dict[str, Any] = {}
    if overrides.get("in_expectation"):
        reset = {"confidence": None, "extra_drops": (), "group_by": None, "budget_ms": None}
    elif overrides.get("confidence") is not None:
        reset = {"in_expectation": False}
    if overrides.get("unlabelled") and settings.group_by == "stratum":
        reset["group_by"] = None
    return override(settings, {**reset, **overrides})


def _reference(
    reference: Artifact | Path | str | None, opened: Artifact, settings: recipe.Calibrate, threads: int
) -> ReferenceModel | None:
    if reference is None:
        return None
    if settings.confidence is None:
        raise UsageError(
            "A reference is given, but no certificate is requested.",
            allowed="--reference with --confidence",
            next_step="add --confidence 95%, or leave --reference out",
        )
    return open_reference(reference, opened.manifest, threads=threads)


def check(opened: Artifact, samples: Samples, settings: recipe.Calibrate, split: str = "validation") -> None:
    """Refuse a calibration that cannot succeed, before it runs; arguments and errors are those of ``calibrate``."""
    check_is_cascade(opened)
    check_policy(settings, len(opened.manifest.exits), opened.task)
    if split == "test":
        raise UsageError(
            "Thresholds may not be chosen on the test split.",
            allowed="validation chooses, test only reports",
            next_step="use the validation split",
        )
    task = task_of(opened.manifest)
    if len(samples) < least_samples(settings, task):
        raise _too_few(len(samples), settings, task, split)
    if not settings.unlabelled:
        _check_targets(task, samples)
    if settings.group_by == "stratum":
        _check_strata(opened.manifest, task, samples, settings)


def uncalibrated(opened: Artifact) -> Artifact:
    """Return an artifact without its policy, which may be one that cannot run here, and what depends on it."""
    exits = tuple(exit_.model_copy(update={"temperature": 1.0}) for exit_ in opened.manifest.exits)
    dropped = {"policy": None, "certificate": None, "one_graph": None, "exits": exits}
    return replace(opened, manifest=opened.manifest.model_copy(update=dropped))


def check_policy(settings: recipe.Calibrate, exits: int, task: Task | None) -> None:
    """Refuse a policy that does not exist, or does not work with these exits, task and settings.

    Args:
        settings: of the calibration.
        exits: E.
        task: gives the signals; None: it is not known yet, and these are not checked.

    Raises:
        UnknownNameError: if there is no such policy.
        UsageError: if the task lacks its signals, there are too few exits, or it cannot keep the drop up to each exit.
    """
    kind = policy_class(settings.policy)
    if task is not None:
        check_task(settings.policy, task)
    if exits < kind.least_exits:
        raise UsageError(
            f"The policy '{settings.policy}' does not work with {exits} exits.",
            allowed=f"at least {kind.least_exits} exits",
            next_step="choose another policy, for example max_prob, or train with more exits (exits.count)",
        )
    if kind.shared and settings.group_by == "exit":
        raise UsageError(
            f"The policy '{settings.policy}' has one threshold for all exits: it cannot satisfy --group-by exit.",
            allowed="with --group-by exit: a policy with a threshold for each exit, such as max_prob or learned",
            next_step="choose another --policy, or leave --group-by exit out",
        )


def check_is_cascade(opened: Artifact) -> None:
    """Refuse an artifact in which early exit saves nothing.

    Raises:
        UsageError: if it is no cascade, or has one exit.
    """
    manifest = opened.manifest
    if manifest.layout != "cascade" or len(manifest.exits) < 2:
        raise UsageError(
            f"'{opened.path}' has the layout '{manifest.layout}' and {len(manifest.exits)} exit(s): early exit "
            "would save nothing.",
            allowed="the layout 'cascade'",
            next_step="sdcompress export CHECKPOINT --layout cascade, and calibrate that",
        )


def least_samples(settings: recipe.Calibrate, task: Task) -> int:
    """Return the number of samples below which ``calibrate`` refuses: nothing is certified even if no sample loses."""
    if settings.confidence is None:
        # conformal risk control adds one loss, so that with fewer samples even 0 losses are too many
        least = calibration_count_for(math.ceil(1 / settings.max_drop) - 1) if settings.in_expectation else 0
        return max(LEAST_SAMPLES, least)
    return max(
        LEAST_SAMPLES, calibration_count_for(least_to_certify(*smallest_drop(settings), exact=_exact(settings, task)))
    )


def _exact(settings: recipe.Calibrate, task: Task) -> bool:
    return kind_of_test(unlabelled=settings.unlabelled, binary_loss=task.binary_loss) == "binomial"


def _check_targets(task: Task, samples: Samples) -> None:
    try:
        task.check_targets(samples.targets)
    except DataError as error:
        raise DataError(
            error.problem,
            allowed=f"{error.allowed}: a drop is counted with targets",
            next_step="label the samples, or certify the disagreement with the last exit: --unlabelled",
        ) from error


def _check_strata(manifest: Manifest, task: Task, samples: Samples, settings: recipe.Calibrate) -> None:
    split, _ = split_of(manifest, samples)
    strata = strata_of(task, samples.targets[split.certify])
    drop, delta = smallest_drop(settings)
    target = f"a drop of {drop:.2%} with a confidence of {settings.confidence:.4g}"
    check_strata(strata, task, least_to_certify(drop, delta), target)


def _too_few(count: int, settings: recipe.Calibrate, task: Task, split: str) -> DataError:
    available, more = f"The {split} split has {count} samples", MORE_HELD_OUT
    if split == EXTERNAL:
        available, more = f"The folder has {count} samples", "collect more samples"
    if settings.confidence is None:
        return DataError(
            f"{available}, too few to choose thresholds with.",
            allowed=f"at least {least_samples(settings, task)}; for a drop of one point, some thousands",
            next_step=more,
        )
    needed, (smallest, delta) = least_samples(settings, task), smallest_drop(settings)
    count_for = samples_for_binomial if _exact(settings, task) else samples_for_loss
    typical = count_for(smallest / 2, smallest, delta)
    half = "" if typical is None else f"; about {calibration_count_for(typical)} where half of that is lost"
    return DataError(
        f"{available}: too few to certify a drop of {smallest:.2%} with a confidence of {settings.confidence:.4g}, "
        "even if nothing is lost.",
        allowed=f"at least {needed} where nothing is lost{half}",
        next_step="ask for a larger drop or less confidence (sdcompress calibrate --plan shows what can be certified), "
        f"or {more}",
    )


def _choose(
    opened: Artifact,
    engine: CascadeEngine,
    samples: Samples,
    settings: recipe.Calibrate,
    *,
    split: str,
    progress: Progress | None,
) -> tuple[tuple[float, ...], Policy]:
    """Return temperatures and a policy without a guarantee, chosen on all samples."""
    times, task = stage_ms(engine, samples), engine.task
    fitted, signals, loss = fit_policy(engine, samples, settings, times, progress)
    evidence, policy = fitted.evidence(signals, loss), fitted.policy
    decisions = decision_ms(policy, signals)
    kept = kept_exits(engine, samples, evidence, policy, settings=settings, stage_ms=times, decision_ms=decisions)
    few = kept.of(evidence)
    chosen = choose_thresholds(few.scores, few.loss, kept.stage_ms, settings.max_drop, shared=policy.shared)
    (thresholds,) = kept.widened((chosen,))
    warn_of_strata(evidence, task.strata(samples.targets), thresholds, task=task, max_drop=settings.max_drop)
    without_exits = Policy(
        name=settings.policy,
        parameters=policy.parameters,
        thresholds=(NEVER,) * len(thresholds),
        max_drop=settings.max_drop,
        split=split,
        samples=len(samples),
        stage_ms=times,
        decision_ms=decisions,
        stage_times=stage_times(engine, opened.manifest, samples),
        **engine.execution_target._asdict(),
        **policy_metrics(evidence, (NEVER,) * len(thresholds), unlabelled=False)._asdict(),
    )
    update = {"thresholds": thresholds, **policy_metrics(evidence, thresholds, unlabelled=False)._asdict()}
    early = without_exits.model_copy(update=update)
    exits = exit_index_of(evidence.scores, thresholds)
    early = early.model_copy(update=call_times(engine, samples, early, fitted.temperatures, exits)._asdict())
    return fitted.temperatures, faster_form(
        early, without_exits, engine, samples, fitted.temperatures, exit_index=exits, settings=settings
    )


def _write(
    opened: Artifact, temperatures: Sequence[float], policy: Policy, certificate: Certificate | None, folder: Path
) -> Manifest:
    exits = tuple(
        exit_.model_copy(update={"temperature": temperature})
        for exit_, temperature in zip(opened.manifest.exits, temperatures, strict=True)
    )
    # the merged graph holds the old thresholds, and the times of backends are of the old policy
    dropped = {"one_graph": None, "backend_times": ()}
    return rewrite(opened, folder, exits=exits, policy=policy, certificate=certificate, **dropped)
