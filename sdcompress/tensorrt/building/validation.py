"""Compare engines with the graphs they were built from, on validation samples: every exit and the exit policy."""

from __future__ import annotations

import warnings
from typing import NamedTuple

from sdcompress.data.samples import Samples, Subset
from sdcompress.data.split import sample_order
from sdcompress.errors import ArtifactError, SetupError, UsageError, VerificationError
from sdcompress.evaluation.comparison import ExitComparison, ExitQuality, PolicyComparison
from sdcompress.evaluation.exit_outcomes import batches
from sdcompress.evaluation.trained_model import TrainedModel
from sdcompress.options import EngineOptions
from sdcompress.progress import Progress
from sdcompress.runtime.engine import Engine
from sdcompress.schema.change import PolicyChange
from sdcompress.schema.engines import Validation
from sdcompress.schema.manifest import Manifest
from sdcompress.tensorrt.building.parity import alternative_build

__all__ = ["Reference", "find_reference", "validate"]

_BATCH = 256


class Reference(NamedTuple):
    """What engines are compared with.

    Attributes:
        graphs: runs the artifact's graphs, by onnxruntime on the CPU.
        samples: of the validation split that it was made with.
    """

    graphs: Engine
    samples: Samples


def find_reference(model: TrainedModel, *, count: int) -> Reference | None:
    """Return the opened graphs of an artifact and validation samples; None with a warning where one is not available.

    Args:
        model: the artifact. If its options name the folder of the data, that must hold it; else the recipe's folder is
            used, if it exists.
        count: of images, at most, in the proportions of the classes; 0: none, without a warning.

    Raises:
        DataError, MissingExtraError: if the folder is given, and does not hold the data or cannot be read.
        ArtifactError: if it is given, and the recipe is of another version, or onnxruntime cannot run the graphs.
    """
    if count == 0:
        return None
    try:
        dataset = model.dataset()
        samples = dataset.split("validation")
        graphs = model.engine(EngineOptions(allow_uncertified=True))  # a comparison needs no certificate
    except (ArtifactError, UsageError, SetupError) as error:
        if model.options.data_dir is not None:
            raise
        warnings.warn(
            f"The engines are not compared with their graphs on validation samples: {error.problem} To compare them: "
            f"{error.next_step}, or name the folder of the data with --data-dir.",
            stacklevel=3,
        )
        return None
    return Reference(graphs, Subset(samples, sample_order(dataset.task, samples.targets, seed=(0,))[:count]))


def validate(
    reference: Reference,
    after: Engine,
    manifest: Manifest,
    *,
    max_drop: float,
    tf32: bool,
    progress: Progress | None = None,
) -> Validation:
    """Run both on all samples; where there is a policy, once to every exit and once as it says.

    Args:
        reference: the graphs, and the samples.
        after: runs the engines made of them.
        manifest: of the artifact.
        max_drop: accuracy that every exit, and the policy, may lose.
        tf32: whether FP32 layers of the engines may use TF32.
        progress: called with (images run, all images).

    Raises:
        DataError: if the samples are not of this network's classes and size.
        VerificationError: if more is lost, or a logit is not finite.
    """
    before, samples = reference
    exits = ExitComparison(before.task, before.exit_names)
    leaving = PolicyComparison(before.task, len(before.exit_names)) if before.policy else None
    for inputs, labels in batches(before, samples, _BATCH, progress):
        exits.add(before.exits(inputs), after.exits(inputs), labels)
        if leaving:
            leaving.add(before(inputs), after(inputs), labels)
    qualities, policy = exits.qualities(), leaving.change() if leaving else None
    problems = [_problem(quality, max_drop) for quality in qualities] + [_lost(policy, max_drop)]
    if any(problems):
        raise VerificationError(
            f"On {len(samples)} validation samples the engines are worse than the graphs they were built from: "
            f"{'; '.join(filter(None, problems))}.",
            allowed=f"finite outputs, and at most {max_drop:.2%} of the metric lost at every exit and by the policy",
            next_step=f"{alternative_build(manifest, tf32=tf32)}; or allow it with --max-drop",
        )
    return Validation(
        samples=len(samples), max_drop=max_drop, exits=tuple(quality.change for quality in qualities), policy=policy
    )


def _problem(quality: ExitQuality, max_drop: float) -> str:
    change = quality.change
    if not quality.finite:
        return f"{change.name}: outputs of the engines or of the graphs are not finite"
    if not quality.loses_more_than(max_drop):
        return ""
    return f"{change.name}: {change.metric_before:.2%} before, {change.metric_after:.2%} after"


def _lost(policy: PolicyChange | None, max_drop: float) -> str:
    if policy is None or policy.metric_before - policy.metric_after <= max_drop + 1e-9:
        return ""
    return (
        f"by the policy: {policy.metric_before:.2%} before, {policy.metric_after:.2%} after ({policy.exit_changes} "
        "samples take another exit)"
    )
