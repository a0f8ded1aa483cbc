"""Choose temperatures and exit thresholds for a cascade with its runtime, and write them to a new artifact."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdcompress.artifact.certificate import graphs_digest
from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.artifact.write import rewrite, staged
from sdcompress.calibration.certified import certified_policy, fingerprint_of, in_expectation
from sdcompress.calibration.observe import fit_policy
from sdcompress.calibration.reference_model import ReferenceModel, open_reference
from sdcompress.calibration.stage_timing import decision_ms, overhead, stage_ms, stage_times
from sdcompress.calibration.thresholds import choose_thresholds
from sdcompress.certification.calibration_split import draw_split, samples_for, seed_of
from sdcompress.certification.certify import kind_of_test, policy_metrics, smallest_drop
from sdcompress.certification.groups import check_strata, strata_of, warn_of_strata
from sdcompress.certification.power_analysis import least_samples as least_to_certify
from sdcompress.certification.power_analysis import samples_for_binomial, samples_for_loss
from sdcompress.data.samples import Samples
from sdcompress.errors import DataError, UsageError
from sdcompress.options import DEFAULT_OPTIONS, EngineOptions
from sdcompress.policies import policy_class
from sdcompress.progress import Progress
from sdcompress.recipes import override
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.open import open_cascade
from sdcompress.schema import recipe
from sdcompress.schema.manifest import Certificate, Exit, Manifest, Policy
from sdcompress.tasks import Task, task_of

__all__ = [
    "EXTERNAL",
    "LEAST_SAMPLES",
    "calibrate",
    "check",
    "check_is_cascade",
    "check_policy",
    "least_samples",
    "merge_settings",
]

LEAST_SAMPLES = 50
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
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Write a copy of a cascade that has a policy; an earlier policy is chosen anew.

    The outputs come from the very graphs that are copied, run by the same engine, and the cost of each stage is
    measured. Where no threshold helps, the policy's thresholds never fire, and all samples reach the last exit. So it
    is where ``settings`` ask for a certificate and none is found.

    Args:
        artifact: a cascade.
        out: folder of the new artifact.
        settings: how much may be lost, with what confidence, and whether temperatures are fitted.
        options: the threads (default: one) at which stages are measured; the backend and the device that the thresholds
            are for: they run the samples, and the policy and its certificate say so.
        samples: N of them, which training has not seen; their targets are not looked at with ``settings.unlabelled``.
        split: what the samples are; only kept in the record.
        reference: an artifact whose last exit losses are counted from; None: its own last exit.
        overwrite: replace an artifact that is there.
        progress: called with (samples done, all samples).

    Raises:
        UsageError: if the artifact is no cascade, the split is "test", or no certified thresholds keep the budget.
        DataError: if there are too few samples, or a target does not fit the task.
        ArtifactError: if the artifact is not intact; VerificationError: if an output is not finite.
        OutputExistsError, StorageError: if ``out`` cannot be written.
        SetupError: if this machine does not have the backend or the device.
    """
    opened = open_artifact(artifact)
    check(opened, samples, settings, split)
    options = replace(options, threads=options.threads or 1, allow_uncertified=True)
    other = _reference(reference, opened, settings, options.threads or 1)
    with staged(out, overwrite=overwrite) as folder:
        engine = open_cascade(opened, options)
        if settings.in_expectation:
            temperatures, policy = in_expectation(
                opened.manifest, engine, samples, settings, split=split, progress=progress
            )
            return _write(opened, _with_temperatures(opened, temperatures), policy, None, folder)
        if settings.confidence is None:
            exits, policy = _choose(opened, engine, samples, settings, split=split, progress=progress)
            return _write(opened, exits, policy, None, folder)
        calibrated = certified_policy(
            opened.manifest, engine, samples, settings, folder, split=split, reference=other, progress=progress
        )
        exits = _with_temperatures(opened, calibrated.temperatures)
        return _write(opened, exits, calibrated.policy, calibrated.certificate, folder)


def merge_settings(
    settings: recipe.Calibrate, overrides: recipe.Calibrate | Mapping[str, Any] | None
) -> recipe.Calibrate:
    """Merge overrides into a recipe's settings; settings that exclude an override are reset.

    Args:
        settings: of the recipe.
        overrides: a whole section, some of its keys, or nothing.

    Raises:
        RecipeError: if a key is unknown, a value is out of range, or two of the overrides exclude each other.
    """
    if not isinstance(overrides, Mapping):
        return settings if overrides is None else overrides
    instead: dict[str, Any] = {}
    if overrides.get("in_expectation"):
        instead = {"confidence": None, "extra_drops": (), "group_by": None, "budget_ms": None}
    elif overrides.get("confidence") is not None:
        instead = {"in_expectation": False}
    if overrides.get("unlabelled") and settings.group_by == "stratum":
        instead["group_by"] = None
    return override(settings, {**instead, **overrides})


def _reference(
    other: Artifact | Path | str | None, opened: Artifact, settings: recipe.Calibrate, threads: int
) -> ReferenceModel | None:
    if other is None:
        return None
    if settings.confidence is None:
        raise UsageError(
            "A reference is named, and no certificate is asked for.",
            allowed="--reference with --confidence",
            next_step="add --confidence 95%, or leave --reference out",
        )
    return open_reference(other, opened.manifest, threads=threads)


def check(opened: Artifact, samples: Samples, settings: recipe.Calibrate, split: str = "validation") -> None:
    """Refuse what cannot be calibrated before anything runs; the arguments and errors are those of ``calibrate``."""
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


def check_policy(settings: recipe.Calibrate, exits: int, task: Task | type[Task]) -> None:
    """Refuse a policy that does not exist, or is of no use for what is asked for.

    Args:
        settings: of the calibration.
        exits: E.
        task: whose signals it would judge by.

    Raises:
        UnknownNameError, UsageError: if so.
    """
    kind = policy_class(settings.policy)
    task.check_names(kind.needs, settings.policy)
    if exits < kind.least_exits:
        raise UsageError(
            f"The policy '{settings.policy}' is of no use with {exits} exits.",
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
            f"'{opened.path}' has the layout '{manifest.layout}' and {len(manifest.exits)} exit(s): leaving early "
            "would save nothing.",
            allowed="the layout 'cascade'",
            next_step="sdcompress export CHECKPOINT --layout cascade, and calibrate that",
        )


def least_samples(settings: recipe.Calibrate, task: Task) -> int:
    """The samples without which ``calibrate`` refuses: even without a single loss there would be no certificate."""
    if settings.confidence is None:
        # conformal risk control counts one loss more than there are: below, even none is too many
        alone = samples_for(math.ceil(1 / settings.max_drop) - 1) if settings.in_expectation else 0
        return max(LEAST_SAMPLES, alone)
    return max(LEAST_SAMPLES, samples_for(least_to_certify(*smallest_drop(settings), exact=_exact(settings, task))))


def _exact(settings: recipe.Calibrate, task: Task) -> bool:
    return kind_of_test(unlabelled=settings.unlabelled, binary_loss=task.binary_loss) == "binomial"


def _check_targets(task: Task, samples: Samples) -> None:
    try:
        task.check_targets(samples.targets)
    except DataError as error:
        raise DataError(
            error.problem,
            allowed=f"{error.allowed}: a drop is counted with targets",
            next_step="label them, or certify disagreement with the last exit instead, which needs none: --unlabelled",
        ) from error


def _check_strata(manifest: Manifest, task: Task, samples: Samples, settings: recipe.Calibrate) -> None:
    seed = seed_of(fingerprint_of(manifest, samples), graphs_digest(manifest))
    strata = strata_of(task, samples.targets[draw_split(len(samples), seed).certify])
    drop, delta = smallest_drop(settings)
    target = f"a drop of {drop:.2%} with a confidence of {settings.confidence:.4g}"
    check_strata(strata, task, least_to_certify(drop, delta), target)


def _too_few(count: int, settings: recipe.Calibrate, task: Task, split: str) -> DataError:
    what, more = f"The {split} split has {count} samples", "set data.validation higher and train again"
    if split == EXTERNAL:
        what, more = f"The folder has {count} samples", "collect more samples"
    if settings.confidence is None:
        return DataError(
            f"{what}, too few to choose thresholds with.",
            allowed=f"at least {least_samples(settings, task)}; for a drop of one point, some thousands",
            next_step=more,
        )
    needed, (smallest, delta) = least_samples(settings, task), smallest_drop(settings)
    plan = samples_for_binomial if _exact(settings, task) else samples_for_loss
    typical = plan(smallest / 2, smallest, delta)
    half = "" if typical is None else f"; about {samples_for(typical)} where half of that is lost"
    return DataError(
        f"{what}: too few to certify a drop of {smallest:.2%} with a confidence of {settings.confidence:.4g}, even if "
        "nothing is lost.",
        allowed=f"at least {needed} where nothing is lost{half}",
        next_step="ask for a larger drop or less confidence (sdcompress calibrate --plan shows what is within reach), "
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
) -> tuple[tuple[Exit, ...], Policy]:
    times, task = stage_ms(engine, samples), engine.task
    fitted, signals, loss = fit_policy(engine, samples, settings, times, progress)
    evidence, policy = fitted.evidence(signals, loss), fitted.policy
    thresholds = choose_thresholds(evidence.scores, loss, times, settings.max_drop, shared=policy.shared)
    warn_of_strata(evidence, task.strata(samples.targets), thresholds, task=task, max_drop=settings.max_drop)
    chosen = Policy(
        name=settings.policy,
        parameters=policy.parameters,
        thresholds=thresholds,
        max_drop=settings.max_drop,
        split=split,
        samples=len(samples),
        stage_ms=times,
        decision_ms=decision_ms(policy, signals),
        stage_times=stage_times(engine, opened.manifest, samples),
        **engine.execution_target._asdict(),
        **policy_metrics(evidence, thresholds, unlabelled=False)._asdict(),
    )
    factor = overhead(engine, samples, chosen, fitted.temperatures)
    return _with_temperatures(opened, fitted.temperatures), chosen.model_copy(update={"overhead": factor})


def _with_temperatures(opened: Artifact, temperatures: Sequence[float]) -> tuple[Exit, ...]:
    return tuple(
        exit_.model_copy(update={"temperature": temperature})
        for exit_, temperature in zip(opened.manifest.exits, temperatures, strict=True)
    )


def _write(
    opened: Artifact, exits: tuple[Exit, ...], policy: Policy, certificate: Certificate | None, folder: Path
) -> Manifest:
    # a graph that exits by itself holds the old thresholds
    return rewrite(opened, folder, exits=exits, policy=policy, certificate=certificate, one_graph=None)
