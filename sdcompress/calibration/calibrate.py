"""Give a cascade its exit policy: temperatures and thresholds, chosen with the runtime that will use them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdcompress.artifact.certificate import graphs_digest
from sdcompress.artifact.evidence import EVIDENCE
from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.artifact.write import entry, rewrite, staged
from sdcompress.calibration.certified import certified, fingerprint_of, in_expectation
from sdcompress.calibration.observe import fit_policy
from sdcompress.calibration.reference_model import Against, open_against
from sdcompress.calibration.stage_timing import decision_ms, overhead, stage_ms, stage_times
from sdcompress.calibration.thresholds import choose_thresholds
from sdcompress.certification.calibration_split import draw_parts, samples_for, seed_of
from sdcompress.certification.certify import figures, smallest_target
from sdcompress.certification.groups import check_classes, warn_of_classes
from sdcompress.certification.power_analysis import least_samples as least_to_certify
from sdcompress.certification.power_analysis import samples_for_binomial, samples_for_loss
from sdcompress.data.samples import Samples
from sdcompress.errors import DataError, UsageError
from sdcompress.options import AS_USUAL, EngineOptions
from sdcompress.policies import policy_class
from sdcompress.progress import Progress
from sdcompress.recipes import override
from sdcompress.runtime.cascade import CascadeEngine
from sdcompress.runtime.open import open_network
from sdcompress.schema import recipe
from sdcompress.schema.manifest import Certificate, Exit, Manifest, Policy

__all__ = [
    "LEAST_SAMPLES",
    "OWN",
    "calibrate",
    "check",
    "check_policy",
    "check_subject",
    "least_samples",
    "with_given",
]

LEAST_SAMPLES = 50
OWN = "own"  # the name of the split, where it is a user's own images


def calibrate(
    artifact: Artifact | Path | str,
    out: Path,
    settings: recipe.Calibrate,
    options: EngineOptions = AS_USUAL,
    *,
    samples: Samples,
    split: str = "validation",
    against: Artifact | Path | str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Write a copy of a cascade that has a policy; an earlier policy is chosen anew.

    The logits come from the very graphs that are copied, run by the same engine, and the cost of each stage is
    measured. Where no threshold helps, the policy's thresholds never fire: everybody reaches the last exit. The same
    where ``settings`` ask for a certificate and none is found.

    Args:
        artifact: a cascade.
        out: folder of the new artifact.
        settings: the accuracy that may be lost, with what confidence, and whether temperatures are fitted.
        options: the threads (default: one) at which stages are measured; the backend and the device that the thresholds
            are for: they run the samples, and the policy and its certificate say so.
        samples: N labelled images that training has not seen; labels may be missing (-1) with ``settings.unlabelled``.
        split: what the samples are; only kept in the record.
        against: an artifact whose last exit the certificate is measured against; None: its own.
        overwrite: replace an artifact that is there.
        progress: called with (images done, all images).

    Raises:
        UsageError: if the artifact is no cascade, the split is "test", or no certified thresholds keep the budget.
        DataError: if there are too few samples, or a label is none of the classes.
        ArtifactError: if the artifact is not intact; VerificationError: if a logit is not finite.
        OutputExistsError, StorageError: if ``out`` cannot be written.
        SetupError: if this machine does not have the backend or the device.
    """
    opened = open_artifact(artifact)
    check(opened, samples, settings, split)
    options = replace(options, threads=options.threads or 1, allow_uncertified=True)
    other = _against(against, opened, settings, options.threads or 1)
    with staged(out, overwrite=overwrite) as folder:
        engine = open_network(opened, options)
        if settings.in_expectation:
            temperatures, policy = in_expectation(
                opened.manifest, engine, samples, settings, split=split, progress=progress
            )
            return _write(opened, _with_temperatures(opened, temperatures), policy, None, folder)
        if settings.confidence is None:
            exits, policy = _choose(opened, engine, samples, settings, split=split, progress=progress)
            return _write(opened, exits, policy, None, folder)
        made = certified(opened.manifest, engine, samples, settings, split=split, against=other, progress=progress)
        made.evidence.save(folder / EVIDENCE)
        certificate = Certificate(**made.certificate, evidence=entry(folder, EVIDENCE))
        return _write(opened, _with_temperatures(opened, made.temperatures), made.policy, certificate, folder)


def with_given(settings: recipe.Calibrate, given: recipe.Calibrate | Mapping[str, Any] | None) -> recipe.Calibrate:
    """A recipe's settings with those that were given instead; what cannot go with these is given up.

    Args:
        settings: of the recipe.
        given: a whole section, some of its keys, or nothing.

    Raises:
        RecipeError: if a key is unknown, a value is out of range, or two of the given exclude each other.
    """
    if not isinstance(given, Mapping):
        return settings if given is None else given
    instead: dict[str, Any] = {}
    if given.get("in_expectation"):
        instead = {"confidence": None, "ladder": (), "per": None, "budget_ms": None}
    elif given.get("confidence") is not None:
        instead = {"in_expectation": False}
    if given.get("unlabelled") and settings.per == "class":
        instead["per"] = None
    return override(settings, {**instead, **given})


def _against(
    other: Artifact | Path | str | None, opened: Artifact, settings: recipe.Calibrate, threads: int
) -> Against | None:
    if other is None:
        return None
    if settings.confidence is None:
        raise UsageError(
            "Another network is named to be measured against, and no certificate is asked for.",
            allowed="--against with --confidence",
            next_step="add --confidence 95%, or leave --against out",
        )
    return open_against(other, opened.manifest, threads=threads)


def check(opened: Artifact, samples: Samples, settings: recipe.Calibrate, split: str = "validation") -> None:
    """Refuse what cannot be calibrated before anything runs; the arguments and errors are those of ``calibrate``."""
    check_subject(opened)
    check_policy(settings, len(opened.manifest.exits))
    if split == "test":
        raise UsageError(
            "Thresholds may not be chosen on the test split.",
            allowed="validation chooses, test only reports",
            next_step="use the validation split",
        )
    if len(samples) < least_samples(settings):
        raise _too_few(len(samples), settings, split)
    missing = int((samples.targets < 0).sum())
    if missing and not settings.unlabelled:
        raise DataError(
            f"The labels of {missing} of {len(samples)} samples are missing (negative).",
            allowed=f"0 to {len(opened.manifest.classes) - 1} for each: a drop in accuracy is counted with labels",
            next_step="label them, or certify disagreement with the last exit instead, which needs none: --unlabelled",
        )
    if settings.per == "class":
        _check_classes(opened.manifest, samples, settings)


def check_policy(settings: recipe.Calibrate, exits: int) -> None:
    """Refuse a policy that does not exist, or is of no use for what is asked for.

    Args:
        settings: of the calibration.
        exits: E.

    Raises:
        UnknownNameError, UsageError: if so.
    """
    kind = policy_class(settings.policy)
    if exits < kind.least_exits:
        raise UsageError(
            f"The policy '{settings.policy}' is of no use with {exits} exits.",
            allowed=f"at least {kind.least_exits} exits",
            next_step="choose another policy, for example max_prob, or train with more exits (exits.auto)",
        )
    if kind.shared and settings.per == "exit":
        raise UsageError(
            f"The policy '{settings.policy}' has one threshold for all exits: it cannot be set so that the wish holds "
            "for what has left by each exit.",
            allowed="with --per-exit: a policy with a threshold for each exit, such as max_prob or learned",
            next_step="choose another --policy, or leave --per-exit out",
        )


def check_subject(opened: Artifact) -> None:
    """Refuse an artifact in which leaving early saves nothing.

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


def least_samples(settings: recipe.Calibrate) -> int:
    """The samples without which ``calibrate`` refuses: even without a single loss there would be no certificate."""
    if settings.confidence is None:
        # conformal risk control counts one loss more than there are: below, even none is too many
        alone = samples_for(math.ceil(1 / settings.max_drop) - 1) if settings.in_expectation else 0
        return max(LEAST_SAMPLES, alone)
    tested = least_to_certify(*smallest_target(settings), unlabelled=settings.unlabelled)
    return max(LEAST_SAMPLES, samples_for(tested))


def _check_classes(manifest: Manifest, samples: Samples, settings: recipe.Calibrate) -> None:
    seed = seed_of(fingerprint_of(manifest, samples), graphs_digest(manifest))
    drop, delta = smallest_target(settings)
    wish = f"a drop of {drop:.2%} with a confidence of {settings.confidence:.4g}"
    labels = samples.targets[draw_parts(len(samples), seed).certify]
    check_classes(labels, manifest.classes, least_to_certify(drop, delta), wish)


def _too_few(found: int, settings: recipe.Calibrate, split: str) -> DataError:
    what, more = f"The {split} split has {found} samples", "set data.validation higher and train again"
    if split == OWN:
        what, more = f"The folder has {found} samples", "collect more images"
    if settings.confidence is None:
        return DataError(
            f"{what}, too few to choose thresholds with.",
            allowed=f"at least {least_samples(settings)}; for a loss of one point, some thousands",
            next_step=more,
        )
    needed, (smallest, delta) = least_samples(settings), smallest_target(settings)
    plan = samples_for_binomial if settings.unlabelled else samples_for_loss
    typical = plan(smallest / 2, smallest, delta)
    half = "" if typical is None else f"; about {samples_for(typical)} where half of that is lost"
    return DataError(
        f"{what}: too few to certify a drop of {smallest:.2%} with a confidence of {settings.confidence:.4g}, even if "
        "not one answer is lost.",
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
    times = stage_ms(engine, samples)
    fitted, signals, right = fit_policy(engine, samples, settings, times, progress)
    evidence, policy = fitted.evidence(signals, right), fitted.policy
    thresholds = choose_thresholds(evidence.confidences, right, times, settings.max_drop, shared=policy.shared)
    warn_of_classes(evidence, samples.targets, thresholds, classes=opened.manifest.classes, max_drop=settings.max_drop)
    chosen = Policy(
        kind=settings.policy,
        parameters=policy.parameters,
        thresholds=thresholds,
        max_drop=settings.max_drop,
        split=split,
        samples=len(samples),
        stage_ms=times,
        decision_ms=decision_ms(policy, signals),
        stage_times=stage_times(engine, opened.manifest, samples),
        **engine.where._asdict(),
        **figures(evidence, thresholds, unlabelled=False),
    )
    found = chosen.model_copy(update={"overhead": overhead(engine, samples, chosen, fitted.temperatures)})
    return _with_temperatures(opened, fitted.temperatures), found


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
