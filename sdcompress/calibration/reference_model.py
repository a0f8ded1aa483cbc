"""Another network to be measured against: what was lost by then, in precision or by pruning, counts as lost too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.read import Artifact, open_artifact
from sdcompress.data.samples import Samples
from sdcompress.errors import UsageError
from sdcompress.evaluation.evaluate import exit_signals
from sdcompress.progress import Progress
from sdcompress.runtime.engine import Engine
from sdcompress.runtime.open import open_engine
from sdcompress.schema.manifest import Manifest

__all__ = ["Against", "comparable", "open_against"]


@dataclass(frozen=True)
class Against:
    """The network whose last exit nothing more may be lost against.

    Attributes:
        engine: runs it.
        digest: of its artifact.
    """

    engine: Engine
    digest: str

    def answers(self, samples: Samples, *, labelled: bool, progress: Progress | None = None) -> npt.NDArray[np.int64]:
        """What its last exit says of each sample, int64 [N].

        Args:
            samples: N images.
            labelled: whether their labels must be of its classes.
            progress: called with (images done, all images).

        Raises:
            VerificationError: if a logit is not finite.
        """
        return exit_signals(self.engine, samples, labelled=labelled, progress=progress)[-1].decision


def open_against(other: Artifact | Path | str, manifest: Manifest, *, threads: int = 1) -> Against:
    """Open the other network, once it is known to answer the same question.

    Args:
        other: its artifact.
        manifest: of the artifact that is calibrated.
        threads: for one call.

    Raises:
        UsageError, ArtifactError: as ``comparable`` does.
    """
    opened = comparable(other, manifest)
    # in onnxruntime on a CPU, wherever the calibrated one runs: what it is there is what its digest names
    return Against(open_engine(opened, threads=threads, allow_uncertified=True), opened.manifest.digest)


def comparable(other: Artifact | Path | str, manifest: Manifest) -> Artifact:
    """Another artifact, opened, once it is known to answer the same question as this one.

    Args:
        other: the other.
        manifest: of this one.

    Raises:
        UsageError: if it has other classes, or its images become another input.
        ArtifactError: if it is not intact.
    """
    opened = open_artifact(other)
    theirs = opened.manifest
    for what, mine, its in (
        ("classes", manifest.classes, theirs.classes),
        ("preprocessing", manifest.input.preprocess, theirs.input.preprocess),
        ("input", manifest.input.shape[1:], theirs.input.shape[1:]),
        ("training data", manifest.provenance.data_fingerprint, theirs.provenance.data_fingerprint),
    ):
        if mine != its:
            raise UsageError(
                f"'{opened.path}' cannot be measured against: its {what} are not those of the artifact at hand.",
                allowed="one of the same classes, input and data set: the artifact it was quantised from, for example",
                next_step="name such a one with --against, or leave it out",
            )
    return opened
