"""Open the reference network from which losses are counted, so that a quantisation's loss counts too."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from sdcompress.artifact.evidence import Evidence
from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.errors import UsageError
from sdcompress.runtime.engine import Engine
from sdcompress.runtime.open import open_engine
from sdcompress.schema.manifest import Manifest
from sdcompress.tasks import Task, metric_of

__all__ = ["ReferenceModel", "open_comparable", "open_reference", "warn_of_weaker_reference"]


@dataclass(frozen=True)
class ReferenceModel:
    """The network from whose last exit losses are counted.

    Attributes:
        engine: runs the network.
        digest: of its artifact.
    """

    engine: Engine
    digest: str


def open_reference(reference: Artifact | Path | str, manifest: Manifest, *, threads: int) -> ReferenceModel:
    """Open the reference network, after a check that it is comparable.

    Args:
        reference: its artifact.
        manifest: of the artifact that is calibrated.
        threads: of one call.

    Raises:
        UsageError, ArtifactError: see ``open_comparable``.
    """
    opened = open_comparable(reference, manifest)
    # always in onnxruntime on a CPU: the certificate names the reference by its digest alone
    return ReferenceModel(open_engine(opened, threads=threads, allow_uncertified=True), opened.manifest.digest)


def open_comparable(reference: Artifact | Path | str, manifest: Manifest) -> Artifact:
    """Open an artifact, after a check that its task, modality and data set are those of this one.

    Args:
        reference: the other artifact.
        manifest: of this one.

    Raises:
        UsageError: if they differ.
        ArtifactError: if it is not intact.
    """
    opened = open_artifact(reference)
    reference_manifest = opened.manifest
    for name, own, other in (
        ("task", manifest.task, reference_manifest.task),
        ("list of outputs", manifest.outputs, reference_manifest.outputs),
        ("modality", manifest.modality, reference_manifest.modality),
        ("data set", manifest.provenance.data_fingerprint, reference_manifest.provenance.data_fingerprint),
    ):
        if own != other:
            raise UsageError(
                f"'{opened.path}' cannot be the reference: it has another {name} than this artifact.",
                allowed="one of the same task, input and data set: the artifact it was quantised from, for example",
                next_step="name such an artifact with --reference, or leave it out",
            )
    return opened


def warn_of_weaker_reference(evidence: Evidence, task: Task, max_drop: float) -> None:
    """Warn where the artifact's own last exit is better than the reference by more than the drop that is allowed.

    Early exit may then lose that difference too, and the certificate says little about this artifact.

    Args:
        evidence: of N samples with targets.
        task: names the metric.
        max_drop: the drop that is allowed.
    """
    reference, last = metric_of(evidence.reference), metric_of(evidence.loss[-1])
    if last - reference <= max_drop + 1e-9:
        return
    warnings.warn(
        f"The {task.metric} of the reference is {reference:.2%} on {len(evidence)} samples, and that of this "
        f"artifact's own last exit {last:.2%}. Early exit may lose the difference and {max_drop:.2%} more. To count "
        "the drop from the own last exit, leave --reference out.",
        stacklevel=2,
    )
