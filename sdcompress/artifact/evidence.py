"""The evidence of a certificate: scores and correctness of every exit on the tested samples, without their images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sdcompress.artifact.npz import Expected, read_npz
from sdcompress.errors import ArtifactError
from sdcompress.untrusted import Refused

__all__ = ["EVIDENCE", "Evidence"]

EVIDENCE = "certificate.npz"

_ARRAYS = {
    "confidences": Expected("float32", 2),
    "right": Expected("uint8", 2),
    "labels": Expected("int32", 1, optional=True),
    "against": Expected("uint8", 1, optional=True),
    "shape_confidences": Expected("float32", 2, optional=True),
}


@dataclass(frozen=True)
class Evidence:
    """Everything needed to compute the losses of any thresholds again.

    Attributes:
        confidences: float32 [E-1, N], scores of all exits but the last.
        right: uint8 [E, N], 1 where the prediction of the exit is the label. For the loss "disagreement": where it is
            the prediction of the reference.
        labels: int32 [N], the class of each sample; only if the bounds hold in every class.
        against: uint8 [N], 1 where the prediction of the reference network is right; only if the reference is another
            network. For the loss "disagreement" it is 1 everywhere.
        shape_confidences: float32 [E-1, M], scores of the samples that gave the path: every threshold on the path is
            one of them. None if they were not kept.
    """

    confidences: npt.NDArray[np.float32]
    right: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32] | None = None
    against: npt.NDArray[np.uint8] | None = None
    shape_confidences: npt.NDArray[np.float32] | None = None

    @property
    def reference(self) -> npt.NDArray[np.uint8]:
        """Correctness of the reference, uint8 [N]: the other network if there is one, else the last exit."""
        return self.right[-1] if self.against is None else self.against

    def save(self, path: Path) -> None:
        """Write the arrays to an .npz. The same arrays give the same bytes."""
        optional = {"labels": self.labels, "against": self.against, "shape_confidences": self.shape_confidences}
        present: dict[str, Any] = {name: array for name, array in optional.items() if array is not None}
        np.savez(path, confidences=self.confidences, right=self.right, **present)

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
        expected_shape = self.right.shape[1:]
        for name, array in (("labels", self.labels), ("against", self.against)):
            if array is not None and array.shape != expected_shape:
                return (
                    f"'{name}' has the shape {list(array.shape)}, not one value for each of {expected_shape[0]} samples"
                )
        for name, array in (("right", self.right), ("against", self.against)):
            if array is not None and array.max(initial=0) > 1:
                return f"'{name}' holds values other than 0 and 1"
        tuning = self.shape_confidences
        if tuning is not None and len(tuning) != len(self.confidences):
            return f"'shape_confidences' has the shape {list(tuning.shape)}, not [{len(self.confidences)}, M]"
        return ""


def _malformed(path: Path, why: str) -> ArtifactError:
    return ArtifactError(
        f"The certificate's evidence '{path.name}' cannot be read: {why}.",
        allowed="confidences float32 [E-1, N], right uint8 [E, N], optionally labels int32 [N], against uint8 [N], "
        "shape_confidences float32 [E-1, M]",
        next_step="copy the artifact again, or calibrate it again",
    )
