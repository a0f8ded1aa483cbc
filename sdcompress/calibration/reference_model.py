"""The reference network that losses are counted from; the loss of a lower precision then counts too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.data.samples import Samples
from sdcompress.errors import UsageError
from sdcompress.evaluation.evaluate import exit_signals
from sdcompress.progress import Progress
from sdcompress.runtime.engine import Engine
from sdcompress.runtime.open import open_engine
from sdcompress.schema.manifest import Manifest
from sdcompress.tasks import Array

__all__ = ["ReferenceModel", "comparable", "open_reference"]


@dataclass(frozen=True)
class ReferenceModel:
    """The network whose last exit losses are counted from.

    Attributes:
        engine: runs it.
        digest: of its artifact.
    """

    engine: Engine
    digest: str

    def decisions(self, samples: Samples, *, labelled: bool, progress: Progress | None = None) -> Array:
        """Return the decisions of its last exit, [N, ...].

        Args:
            samples: N of them.
            labelled: whether their targets must be of its task.
            progress: called with (samples done, all samples).

        Raises:
            VerificationError: if an output is not finite.
        """
        return exit_signals(self.engine, samples, labelled=labelled, progress=progress)[-1].decision


def open_reference(other: Artifact | Path | str, manifest: Manifest, *, threads: int = 1) -> ReferenceModel:
    """Open the other network, once it is known to have the same task and input.

    Args:
        other: its artifact.
        manifest: of the artifact that is calibrated.
        threads: for one call.

    Raises:
        UsageError, ArtifactError: as ``comparable`` does.
    """
    opened = comparable(other, manifest)
    # in onnxruntime on a CPU, wherever the calibrated one runs: what it is there is what its digest names
    return ReferenceModel(open_engine(opened, threads=threads, allow_uncertified=True), opened.manifest.digest)


def comparable(other: Artifact | Path | str, manifest: Manifest) -> Artifact:
    """Another artifact, opened, once it is known to have the same task and input as this one.

    Args:
        other: the other.
        manifest: of this one.

    Raises:
        UsageError: if its task or its input is another.
        ArtifactError: if it is not intact.
    """
    opened = open_artifact(other)
    reference_manifest = opened.manifest
    for what, mine, its in (
        ("task", manifest.task, reference_manifest.task),
        ("list of outputs", manifest.outputs, reference_manifest.outputs),
        ("modality", manifest.modality, reference_manifest.modality),
        ("data set", manifest.provenance.data_fingerprint, reference_manifest.provenance.data_fingerprint),
    ):
        if mine != its:
            raise UsageError(
                f"'{opened.path}' cannot be the reference: it has another {what} than this artifact.",
                allowed="one of the same task, input and data set: the artifact it was quantised from, for example",
                next_step="name such an artifact with --reference, or leave it out",
            )
    return opened
