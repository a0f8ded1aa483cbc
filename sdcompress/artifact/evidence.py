"""The evidence of a certificate: scores and losses of every exit on the tested samples, without their inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.npz import Expected, read_npz
from sdcompress.errors import ArtifactError
from sdcompress.untrusted import Refused

__all__ = ["EVIDENCE", "Evidence"]

EVIDENCE = "certificate.npz"

_ARRAYS = {
    "scores": Expected("float32", 2),
    "loss": Expected("float32", 2),
    "strata": Expected("int32", 1, optional=True),
    "reference_loss": Expected("float32", 1, optional=True),
    "tuning_scores": Expected("float32", 2, optional=True),
    "disagreement": Expected("float32", 2, optional=True),
}


@dataclass(frozen=True)
class Evidence:
    """What is needed to compute the losses of any thresholds again.

    Attributes:
        scores: float32 [E-1, N], the policy's scores at all exits but the last.
        loss: float32 [E, N] in [0, 1], the loss of each exit's decision against the target. For a certificate of
            disagreement: against the decision of the reference.
        strata: int32 [N], the stratum of each sample; only if the bounds hold in every stratum.
        reference_loss: float32 [N], the loss of the reference; only if the reference is another network. For a
            certificate of disagreement it is 0 everywhere.
        tuning_scores: float32 [E-1, M], scores of the samples that made the path: every threshold on the path is one of
            them. None if they were not kept.
        disagreement: float32 [E-1, N] in [0, 1], the loss of each early exit's decision against that of the last exit.
            None where ``loss`` is that already, or it was not kept.
    """

    scores: npt.NDArray[np.float32]
    loss: npt.NDArray[np.float32]
    strata: npt.NDArray[np.int32] | None = None
    reference_loss: npt.NDArray[np.float32] | None = None
    tuning_scores: npt.NDArray[np.float32] | None = None
    disagreement: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return int(self.loss.shape[1])

    @property
    def reference(self) -> npt.NDArray[np.float32]:
        """Return the loss of the reference, float32 [N]: of the other network if any, else of the last exit."""
        return self.loss[-1] if self.reference_loss is None else self.reference_loss

    def save(self, path: Path) -> None:
        """Write the arrays to an .npz. The same arrays give the same bytes."""
        np.savez(path, **{name: array for name, array in vars(self).items() if array is not None})

    @classmethod
    def load(cls, path: Path) -> Evidence:
        """Read evidence from an .npz. Nothing is unpickled.

        Raises:
            ArtifactError: if the file does not hold these arrays.
        """
        try:
            evidence = cls(**read_npz(path, _ARRAYS))
        except (OSError, Refused) as error:
            raise _malformed(path, str(error)) from error
        if wrong := evidence._problem():
            raise _malformed(path, wrong)
        return evidence

    def _problem(self) -> str:
        exits, samples = self.loss.shape
        early = (exits - 1, samples)
        shapes = {"scores": early, "strata": (samples,), "reference_loss": (samples,), "disagreement": early}
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                return f"'{name}' has the shape {list(array.shape)}, not {list(shape)}: 'loss' has {exits} x {samples}"
        for name in ("loss", "reference_loss", "disagreement"):
            array = getattr(self, name)
            if array is not None and not ((array >= 0) & (array <= 1)).all():
                return f"'{name}' holds values outside 0 to 1"
        tuning = self.tuning_scores
        if tuning is not None and len(tuning) != exits - 1:
            return f"'tuning_scores' has the shape {list(tuning.shape)}, not [{exits - 1}, M]"
        return ""


def _malformed(path: Path, why: str) -> ArtifactError:
    return ArtifactError(
        f"The certificate's evidence '{path.name}' cannot be read: {why}.",
        allowed="scores float32 [E-1, N], loss float32 [E, N] in [0, 1], optionally strata int32 [N], reference_loss "
        "float32 [N], tuning_scores float32 [E-1, M], disagreement float32 [E-1, N] in [0, 1]",
        next_step="copy the artifact again, or calibrate it again",
    )
